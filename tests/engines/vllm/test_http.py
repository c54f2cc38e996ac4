"""A real server: API process, engine core and worker apart, async scheduling on, an API key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engines import examples, matrix, operating, scenario, trying
from engines.bad_requests import BAD, Bad
from engines.vllm import driver
from engines.vllm.server import NAME, Server, serve
from ground import model as ground

import midstep

KEYED = {"Authorization": "Bearer swordfish"}
FLAGS = ("--api-key", "swordfish", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")


@pytest.fixture(scope="module")
def server(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the small model."""
    folder = tmp_path_factory.mktemp("server")
    settings = json.dumps({"midstep": operating.settings(folder)})
    with serve(small, folder / "log.txt", *FLAGS, "--additional-config", settings) as running:
        yield running


def ask(server: Server, case: scenario.Case) -> list[driver.Sample]:
    """Send one case as an OpenAI client would, and collect its samples; a streamed one fetches its report."""
    body = {**scenario.http_body(case, "vllm", NAME), "return_token_ids": True}
    path = "/v1/chat/completions" if case.chat else "/v1/completions"
    status, text = server.call(path, body, KEYED)
    assert status == 200, text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] or [json.loads(text)]
    samples = [driver.Sample() for _ in range(case.n)]
    for chunk in chunks:
        for choice in chunk["choices"]:
            sample = samples[choice["index"]]
            message = choice.get("delta") or choice.get("message") or {}
            sample.text += choice.get("text") or message.get("content") or ""
            sample.ids += choice.get("token_ids") or []
            sample.finish_reason = choice["finish_reason"] or sample.finish_reason
            sample.stop_reason = choice.get("stop_reason") or sample.stop_reason
    reported: Any = chunks[-1]
    if case.stream and case.methods is not None:
        status, text = server.call(f"/midstep/report/{chunks[0]['id']}", headers=KEYED)
        assert status == 200, text
        reported = {"kv_transfer_params": {"midstep": json.loads(text)}}
    for index, sample in enumerate(samples):
        sample.report = midstep.report(reported, index)
    return samples


def test_the_whole_scenario_over_http(server: Server, small: str) -> None:
    """Completions, chats, streams, n = 2 and n = 4, all at once: ids, text, reasons and reports are midstep-eager's."""
    with ThreadPoolExecutor(16) as clients:
        found = dict(
            zip([c.name for c in scenario.CASES], clients.map(lambda c: ask(server, c), scenario.CASES), strict=True)
        )
    assert driver.differences(found, scenario.expected(small)) == {}


def test_echo(server: Server) -> None:
    """A steered completion repeats its prompt before its text."""
    case = next(c for c in scenario.CASES if c.name == "min_p sampled")
    status, text = server.call("/v1/completions", {**scenario.http_body(case, "vllm", NAME), "echo": True}, KEYED)
    assert status == 200, text
    answer = json.loads(text)
    assert answer["choices"][0]["text"].startswith(case.prompt)
    assert midstep.report(answer) is not None
    matrix.record(driver.RUNNER, "echo", "works")


def test_the_tool_parser(server: Server) -> None:
    """A chat whose forced text is a tool call: the parser makes a call of it, and the report is there."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    words = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    ids = scenario.load_tokenizer(str(ground.paths().small))(words).input_ids
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Call f."}],
        "tools": [tool],
        "tool_choice": "auto",
        "max_tokens": len(ids),
        "ignore_eos": True,
        "temperature": 0,
        "vllm_xargs": midstep.request(force={"at": 0, "ids": list(ids)}),
    }
    status, text = server.call("/v1/chat/completions", body, KEYED)
    assert status == 200, text
    message = json.loads(text)["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["f"], message
    assert midstep.report(json.loads(text)) is not None
    matrix.record(driver.RUNNER, "tool parser", "works")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_request_is_refused_and_the_server_lives(server: Server, bad: Bad, streamed: bool) -> None:
    """A 4xx whose text names the value and the way out, also where a stream was asked for."""
    body: Any = bad.raw
    if body is None:
        body = {"model": NAME, "prompt": "Once", "max_tokens": 2, "temperature": 0.0, "stream": streamed, **bad.body}
        body |= {} if bad.entry is None else {"vllm_xargs": bad.entry}
    status, text = server.call("/v1/completions", body, KEYED)
    if streamed and status == 200:  # what only the prompt's admission finds comes as the stream's first event
        text = json.loads(text.removeprefix("data: ").splitlines()[0])["error"]["message"]
        found = ("a method that cannot be prepared", "more samples than the limit", "a history beyond the limit")
        assert bad.name in found, text
    else:
        assert 400 <= status < 500, text
    assert all(part in text.replace("\\\\", "\\") for part in bad.says), text


def test_a_good_request_after_the_bad_ones(server: Server) -> None:
    """The server still answers."""
    assert ask(server, scenario.CASES[2])[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("path", "own"),
    [("/v1/messages", {"max_tokens": 4}), ("/v1/responses", {"max_output_tokens": 4}), ("/v1/chat/completions", {})],
)
def test_the_other_routes_refuse_too(server: Server, path: str, own: dict[str, Any]) -> None:
    """A method that is not installed is refused on every route that takes vllm_xargs."""
    said = {"input": "Hi"} if path.endswith("responses") else {"messages": [{"role": "user", "content": "Hi"}]}
    body = {"model": NAME, **said, **own, "vllm_xargs": {"midstep": '{"methods": {"min_q": {}}}'}}
    status, text = server.call(path, body, KEYED)
    assert status == 400, text
    assert "min_q" in text


def test_beam_search_is_refused(server: Server) -> None:
    """Beam search drops vllm_xargs; a request that asks for both is refused, not answered without its methods."""
    body = {"model": NAME, "prompt": "Once", "max_tokens": 2, "n": 2, "use_beam_search": True}
    status, text = server.call("/v1/completions", {**body, "vllm_xargs": midstep.request(min_p={})}, KEYED)
    assert status == 400, text
    assert "use_beam_search" in text
    assert server.call("/v1/completions", body, KEYED)[0] == 200


def test_reports_ask_for_the_servers_key(server: Server) -> None:
    """The report of somebody's request is not for everybody; an unknown id is a 404 that says what to do."""
    assert server.call("/midstep/report/cmpl-nobody")[0] == 401
    status, text = server.call("/midstep/report/cmpl-nobody", headers=KEYED)
    assert status == 404
    assert "cmpl-nobody" in text


def test_metrics_count_what_the_reports_say(server: Server) -> None:
    """Whole and streamed, n = 2, a stop, a fault: /metrics grows by exactly the numbers of the reports."""
    usual = {"model": NAME, "prompt": "Once upon a time", "max_tokens": 12, "ignore_eos": True, "temperature": 1.2}
    asked = [
        {"n": 2, "seed": 1, "vllm_xargs": midstep.request(min_p={"p": 0.2})},
        {"seed": 2, "vllm_xargs": midstep.request(min_p={}, deepconf={"threshold": 100.0, "window": 3})},
        {"seed": 3, "vllm_xargs": midstep.request(faulty={"how": "nan"}, on_error="continue")},
        {"seed": 4},
    ]
    reports = []

    def ask_all() -> None:
        for body in asked:
            status, text = server.call("/v1/completions", {**usual, **body}, KEYED)
            assert status == 200, text
            reports.extend(filter(None, (midstep.report(json.loads(text), i) for i in range(2))))

    found = operating.grown(lambda: server.call("/metrics")[1], ask_all)
    assert [list(report.methods) for report in reports] == [["min_p"], ["min_p"], ["deepconf", "min_p"], ["faulty"]]
    assert reports[2].stop is not None
    assert reports[3].faults[0].count > 1
    assert operating.counters(found) == operating.counted(reports, NAME)


def test_metrics_tell_the_time_of_each_step(server: Server) -> None:
    """A request of 9 tokens, alone, is 9 steps with midstep's rows; one without methods is none."""
    body = {"model": NAME, "prompt": "Once", "max_tokens": 9, "ignore_eos": True, "temperature": 0}
    own = {**body, "vllm_xargs": midstep.request(min_p={})}
    found = operating.grown(lambda: server.call("/metrics")[1], lambda: server.call("/v1/completions", own, KEYED))
    count, seconds = operating.steps(found, NAME)
    assert count == 9
    assert 0 < seconds < 9
    assert (
        operating.grown(lambda: server.call("/metrics")[1], lambda: server.call("/v1/completions", body, KEYED)) == {}
    )


def test_the_commands_try_and_trace(server: Server, tmp_path: Path) -> None:
    """A person at a terminal sees the answers that a client gets, whole and streamed, and the trace of one."""

    def asked(body: Any, entry: Any) -> Any:
        body = {"model": NAME, **body, **({} if entry is None else {"vllm_xargs": entry})}
        return json.loads(server.call("/v1/completions", body, KEYED)[1])

    trying.check(server.url, tmp_path, asked, "--key", "swordfish")


def test_the_examples_of_clients(server: Server) -> None:
    """OpenAI's client and curl."""
    said = examples.run("openai_client.py", server.url, "swordfish")
    assert said.count("tokens changed by min_p") == 2
    answer = json.loads(examples.run("curl.sh", server.url, "vllm", "swordfish"))
    assert list(midstep.report(answer).methods) == ["deepconf", "min_p"]


def test_the_log_has_no_traceback_but_of_what_we_broke(server: Server) -> None:
    """Everything above left the engine's log clean: no method failed, and midstep did not."""
    text = Path(server.log).read_text()
    assert "midstep 0.1.0 is on" in text
    assert "midstep failed" not in text
    assert "EngineDeadError" not in text
