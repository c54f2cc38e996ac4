"""A real server: API process, engine core and worker apart, async scheduling on, an API key, parsers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engines import examples, matrix, operating, parsers, scenario, trying
from engines.bad_requests import BAD, Bad
from engines.vllm import driver
from engines.vllm.server import NAME, Server, serve

import midstep

KEYED = {"Authorization": "Bearer swordfish"}
# Qwen's marks are found in the text, whatever its tokens are, and without them an answer is all reasoning. With a
# reasoning parser, vLLM lets a grammar wait for the end of the reasoning unless it is told not to.
MARKS = ("<think>", "</think>")
FLAGS = (
    *("--api-key", "swordfish", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--reasoning-parser", "qwen3", "--structured-outputs-config", '{"enable_in_reasoning": true}'),
)


@pytest.fixture(scope="module")
def server(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the small model."""
    folder = tmp_path_factory.mktemp("server")
    settings = json.dumps({"midstep": operating.settings(folder)})
    with serve(small, folder / "log.txt", *FLAGS, "--additional-config", settings) as running:
        yield running


def send(server: Server, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the answer to one request: its one body, or the chunks of a stream."""
    status, text = server.call(path, {"model": NAME, "return_token_ids": True, **body}, KEYED)
    assert status == 200, text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] or [json.loads(text)]


def collected(chunks: list[dict[str, Any]], n: int = 1) -> list[driver.Sample]:
    """Return the samples of an answer, without their reports; a chat's text is its content."""
    samples = [driver.Sample() for _ in range(n)]
    for chunk in chunks:
        for choice in chunk["choices"]:
            sample = samples[choice["index"]]
            message = choice.get("delta") or choice.get("message") or {}
            sample.text += choice.get("text") or message.get("content") or ""
            sample.reasoning += message.get("reasoning") or ""
            sample.ids += choice.get("token_ids") or []
            sample.finish_reason = choice["finish_reason"] or sample.finish_reason
            sample.stop_reason = choice.get("stop_reason") or sample.stop_reason
    return samples


def fetched(server: Server, name: str) -> dict[str, Any]:
    """Return the reports of a request as an answer would carry them."""
    status, text = server.call(f"/midstep/report/{name}", headers=KEYED)
    assert status == 200, text
    return {"kv_transfer_params": {"midstep": json.loads(text)}}


def ask(server: Server, case: scenario.Case) -> list[driver.Sample]:
    """Send one case as an OpenAI client would, and collect its samples; a streamed one fetches its report."""
    path = "/v1/chat/completions" if case.chat else "/v1/completions"
    chunks = send(server, path, scenario.http_body(case, "vllm", NAME))
    samples = collected(chunks, case.n)
    reported: Any = fetched(server, chunks[0]["id"]) if case.stream and case.methods is not None else chunks[-1]
    for index, sample in enumerate(samples):
        sample.text = sample.reasoning + sample.text
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
    """A steered completion repeats its prompt before its text, and the text is what it is without the echo."""
    body = {"prompt": matrix.PROMPT, "max_tokens": 6, "temperature": 0, "return_token_ids": False}

    def ask(kind: str) -> list[Any]:
        own = {**body, "vllm_xargs": midstep.request(**matrix.KINDS[kind])}
        return [send(server, "/v1/completions", {**own, "echo": echo})[0] for echo in (False, True)]

    for kind, (plain, echoed) in parsers.by_kind(ask).items():
        assert echoed["choices"][0]["text"] == matrix.PROMPT + plain["choices"][0]["text"]
        assert list(midstep.report(echoed).methods) == list(matrix.KINDS[kind])
    matrix.record(driver.RUNNER, "echo", "works")


def test_the_tool_parser(server: Server, small: str) -> None:
    """A chat whose forced text is a tool call: the parser makes a call of it, and the report is there."""
    tokenizer = scenario.load_tokenizer(small)

    def ask(kind: str) -> Any:
        body, entry = parsers.calling(kind, tokenizer)
        return send(server, "/v1/chat/completions", {**body, "vllm_xargs": entry})[0]

    for kind, answer in parsers.by_kind(ask).items():
        message = answer["choices"][0]["message"]
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["f"], message
        assert set(midstep.report(answer).methods) == {*matrix.KINDS[kind], "force"}
    matrix.record(driver.RUNNER, "tool parser", "works")


def test_the_reasoning_parser(server: Server, small: str) -> None:
    """What is steered is parted into reasoning and content where its own marks stand, whole and streamed."""
    tokenizer = scenario.load_tokenizer(small)

    def ask(kind: str) -> list[Any]:
        body, entry = parsers.thinking(kind, MARKS, tokenizer)
        own = {**body, "vllm_xargs": entry}
        return [send(server, "/v1/chat/completions", {**own, "stream": stream}) for stream in (False, True)]

    for kind, answers in parsers.by_kind(ask).items():
        for about, chunks in zip(("whole", "streamed"), answers, strict=True):
            [sample] = collected(chunks)
            thought, answer = parsers.split(tokenizer.decode(sample.ids, skip_special_tokens=True), MARKS)
            assert (sample.reasoning, sample.text) == (thought, answer), f"{kind}, {about}"
            report = midstep.report(fetched(server, chunks[0]["id"]))
            assert set(report.methods) == {*matrix.KINDS[kind], "force"}
            assert report.methods["force"].tokens == len(sample.ids)
    matrix.record(driver.RUNNER, "reasoning parser", "works")


@pytest.mark.parametrize("more", [{}, {"cfg": {"negative": "Twice"}}], ids=["alone", "guided"])
def test_the_client_goes_away(server: Server, more: dict[str, Any]) -> None:
    """A stream whose client leaves has a report of what was drawn until then, and nothing of it stays in the engine."""
    body = {"prompt": "Once", "max_tokens": 500, "stream": True, "temperature": 1.2, "seed": 5, "ignore_eos": True}
    asked = {"model": NAME, "return_token_ids": True, **body}
    extra = midstep.request(trace=True, min_p={"p": 0.2}, **more)
    chunks = server.leave("/v1/completions", {**asked, "vllm_xargs": extra}, KEYED, 10)
    path, until = f"/midstep/report/{chunks[0]['id']}", time.monotonic() + 20
    while server.call(path, headers=KEYED)[0] == 404 and time.monotonic() < until:
        time.sleep(0.1)
    report = midstep.report(fetched(server, chunks[0]["id"]))
    drawn = [token.token for token in report.trace]
    delivered = collected(chunks)[0].ids
    assert len(delivered) >= 10
    assert drawn[: len(delivered)] == delivered
    assert report.methods["min_p"].tokens == len(drawn) < 500
    send(server, "/v1/completions", {"prompt": "Once", "max_tokens": 2})  # the numbers are those of its last step
    numbers = dict(line.rsplit(" ", 1) for line in server.call("/metrics")[1].splitlines() if line[:1] != "#")
    for name in ("vllm:num_requests_running", "vllm:kv_cache_usage_perc"):
        assert {float(value) for key, value in numbers.items() if key.startswith(name)} == {0.0}


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
        found += ("a negative prompt of no tokens", "a negative prompt beyond the context", "messages that are none")
        found += ("a token id beyond the vocabulary", "more companions than the limit", "the weakest of one")
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
        {"seed": 5, "vllm_xargs": midstep.request(step_reward={"reward": "judged", "separator": "e"})},
        {"seed": 4},
    ]
    reports = []

    def ask_all() -> None:
        for body in asked:
            status, text = server.call("/v1/completions", {**usual, **body}, KEYED)
            assert status == 200, text
            reports.extend(filter(None, (midstep.report(json.loads(text), i) for i in range(2))))

    found = operating.grown(lambda: server.call("/metrics")[1], ask_all)
    assert [list(report.methods) for report in reports] == [
        ["min_p"],
        ["min_p"],
        ["deepconf", "min_p"],
        ["faulty"],
        ["step_reward"],
    ]
    assert reports[2].stop is not None
    assert reports[3].faults[0].count > 1
    assert reports[4].steps
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


def test_the_doctor_finds_midstep_in_a_live_server(server: Server) -> None:
    """By the 400 with which it refuses a method that nobody has; without the key it asks for it."""
    for key, status, line in (
        (["--key", "swordfish"], 0, f"ok      {server.url} has midstep; installed: "),
        ([], 1, "mend: give its key with --key"),
    ):
        command = [sys.executable, "-m", "midstep", "doctor", "--url", server.url, *key]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert line in done.stdout, done.stdout + done.stderr
        assert done.returncode == status


def test_the_log_has_no_traceback_but_of_what_we_broke(server: Server) -> None:
    """Everything above left the engine's log clean: no method failed, and midstep did not."""
    text = Path(server.log).read_text()
    assert "midstep 0.1.0 is on" in text
    assert "midstep failed" not in text
    assert "EngineDeadError" not in text
