"""Searches in one request to a real `vllm serve`: OpenAI's client, streams, refusals, clients who go away."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from engines import examples, operating
from engines.vllm import driver
from engines.vllm.server import NAME, Server, serve
from transformers import AutoTokenizer

import midstep
from midstep import metrics
from midstep.drivers.openai import OpenAI
from midstep_faulty import Vowels

pytestmark = pytest.mark.skipif(driver.V2, reason="about the API process: the run with V1 shows it")

KEY = "swordfish"
KEYED = {"Authorization": f"Bearer {KEY}"}
PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": "Tell me a story."}]
USUAL: dict[str, Any] = {"model": NAME, "reward": "mine", "separator": " the", "seed": 1, "temperature": 1.0}
FILTER = {"particle_filter": {"n": 4, "step_tokens": 12, "max_steps": 2}}
LONG = {"best_of_n": {"n": 4, "max_tokens": 450}}
PLANS: list[dict[str, Any]] = [
    {"best_of_n": {"n": 4, "max_tokens": 24}},
    {"step_beam": {"beams": 2, "m": 2, "step_tokens": 12, "max_steps": 2}},
    FILTER,
    {"dvts": {"trees": 2, "m": 2, "step_tokens": 12, "max_steps": 2}},
    {"rebase": {"width": 4, "step_tokens": 12, "max_steps": 2}},
    {"early_rejection": {"beams": 1, "m": 3, "tau": 4, "step_tokens": 12, "max_steps": 2}},
]


@pytest.fixture(scope="module")
def server(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the small model with a key, and a midstep.toml that has rewards."""
    folder = tmp_path_factory.mktemp("server")
    settings = json.dumps({"midstep": operating.settings(folder)})
    with serve(small, folder / "log.txt", "--api-key", KEY, "--additional-config", settings) as started:
        yield started


def asked(server: Server, path: str = "completions", **body: Any) -> tuple[int, Any]:
    own = {"prompt": PROMPT} if path == "completions" else {"messages": CHAT}
    status, text = server.call(f"/midstep/v1/{path}", {**USUAL, **own, **body}, KEYED)
    return status, json.loads(text)


def streamed(server: Server, path: str = "completions", **body: Any) -> list[dict[str, Any]]:
    own = {"prompt": PROMPT} if path == "completions" else {"messages": CHAT}
    status, text = server.call(f"/midstep/v1/{path}", {**USUAL, **own, "stream": True, **body}, KEYED)
    assert status == 200, text
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


def driven(server: Server, small: str, prompt: Any, **plan: Any) -> midstep.Result:
    """Return what the same search finds with the driver for OpenAI's servers, on the same server."""

    async def search() -> midstep.Result:
        own = AutoTokenizer.from_pretrained(small)
        async with OpenAI(f"{server.url}/v1", NAME, key=KEY, tokenizer=own, sampling={"temperature": 1.0}) as engine:
            return await midstep.search(engine, prompt, reward=Vowels(), separator=" the", seed=1, **plan)

    return asyncio.run(search())


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(*plan))
def test_each_search_finds_what_the_driver_finds(server: Server, small: str, plan: dict[str, Any]) -> None:
    """One request gives the text, the weights and the counts of a search from outside."""
    status, answer = asked(server, search=plan, budget=200, trace=True)
    assert status == 200, answer
    found = driven(server, small, PROMPT, budget=200, **plan)
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == found.text
    assert answer["midstep"]["trace"]["weights"] == list(found.weights)
    spent = answer["usage"]["midstep"]
    assert spent["reward"] == found.spent.reward
    if "early_rejection" not in plan:  # how far one had come that is cancelled is the clock's affair
        assert spent["engine"] == found.spent.engine
    usage = answer["usage"]
    assert usage["completion_tokens"] == spent["engine"] <= 200
    assert usage["total_tokens"] == usage["prompt_tokens"] + spent["engine"] + spent["reward"]


def test_a_chat_is_rendered_as_the_servers_own_route_does(server: Server, small: str) -> None:
    status, answer = asked(server, "chat/completions", search=FILTER)
    assert status == 200, answer
    found = driven(server, small, CHAT, **FILTER)
    assert (answer["object"], answer["model"]) == ("chat.completion", NAME)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": found.text}
    assert answer["usage"]["prompt_tokens"] == found.trace["prompt_tokens"]


def test_the_best_two_answers(server: Server) -> None:
    status, answer = asked(server, search=PLANS[0], n=2, trace=True)
    assert status == 200, answer
    texts = [choice["text"] for choice in answer["choices"]]
    assert len({*texts}) == 2
    weights = answer["midstep"]["weights"]
    assert weights == sorted(answer["midstep"]["trace"]["weights"], reverse=True)[:2]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_stream_tells_its_progress_and_ends_with_the_same_answer(server: Server, path: str) -> None:
    _, whole = asked(server, path, search=FILTER, n=2)
    chunks = streamed(server, path, search=FILTER, n=2, stream_options={"include_usage": True})
    progress = [chunk["midstep"]["nodes"] for chunk in chunks if "nodes" in chunk.get("midstep", {})]
    assert {"0", "1", "2", "3"} <= set().union(*progress)
    assert all({"tokens", "value", "fate"} <= node.keys() for nodes in progress for node in nodes.values())
    texts, reasons = ["", ""], [None, None]
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"].get("content") if "delta" in choice else choice["text"]
            texts[choice["index"]] += delta or ""
            reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
    for i, choice in enumerate(whole["choices"]):
        assert texts[i] == (choice["message"]["content"] if "message" in choice else choice["text"])
        assert reasons[i] == choice["finish_reason"]
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert chunks[-1]["choices"] == []
    assert chunks[-2]["midstep"]["weights"] == whole["midstep"]["weights"]


def test_openais_client(server: Server) -> None:
    """With another base URL, and what a search needs in `extra_body`; whole, streamed, and refused."""
    client = openai.OpenAI(base_url=f"{server.url}/midstep/v1", api_key=KEY)
    assert client.models.list().data[0].id == NAME
    extra = {"search": FILTER, "reward": "mine", "separator": " the"}
    usual: dict[str, Any] = {"model": NAME, "messages": CHAT, "seed": 1, "temperature": 1.0, "extra_body": extra}
    answer = client.chat.completions.create(**usual)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens + _reward(answer)
    text = ""
    for chunk in client.chat.completions.create(**usual, stream=True):
        text += chunk.choices[0].delta.content or ""
    assert text == answer.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match=r"particle_filter\.n"):
        client.chat.completions.create(**{**usual, "extra_body": {**extra, "search": {"particle_filter": {"n": 0}}}})


def _reward(answer: Any) -> int:
    return int(answer.usage.midstep["reward"])


def test_eight_searches_at_once_find_what_they_find_alone(server: Server) -> None:
    plan, seeds = {"particle_filter": {"n": 2, "step_tokens": 8, "max_steps": 2}}, range(8)
    alone = [asked(server, search=plan, seed=seed)[1]["choices"] for seed in seeds]
    with ThreadPoolExecutor(8) as clients:
        together = clients.map(lambda seed: asked(server, search=plan, seed=seed)[1]["choices"], seeds)
    assert list(together) == alone
    assert len({str(choices) for choices in alone}) == 8


def running(server: Server) -> float:
    """Return how many requests are in the engine."""
    _, text = server.call("/metrics")
    return sum(float(n) for n in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M))


def _calm(server: Server) -> float:
    """Return how long requests still run, of those who left; at most three seconds."""
    began = time.monotonic()
    while running(server) and time.monotonic() < began + 3:
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("reward", ["mine", "slow"])
def test_a_client_who_goes_away_ends_its_search(server: Server, stream: bool, reward: str) -> None:
    """Within a second nothing of it is in the engine; in mid-generation, and while its reward is asked."""
    before = searches(server)
    plan = LONG if reward == "mine" else {"step_beam": {"beams": 4, "m": 4, "step_tokens": 8, "max_steps": 40}}
    body = {**USUAL, "prompt": PROMPT, "search": plan, "reward": reward, "stream": stream, "ignore_eos": True}
    raw = json.dumps(body).encode()
    head = f"POST /midstep/v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port)) as client:
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
        until = time.monotonic() + 10
        while not running(server) and time.monotonic() < until:
            time.sleep(0.02)
        assert running(server) > 0
        time.sleep(0.3)
    assert _calm(server) < 1
    until = time.monotonic() + 1
    while searches(server) == before and time.monotonic() < until:
        time.sleep(0.02)
    name = next(iter(plan))
    assert searches(server).get((name, "cancelled"), 0) == before.get((name, "cancelled"), 0) + 1


def searches(server: Server) -> dict[tuple[str, str], float]:
    """Return the searches that have ended, by name and outcome."""
    read = operating.samples(server.call("/metrics")[1])
    found = {name[1]: value for name, value in read.items() if name[0] == metrics.SEARCHES.name}
    return {(dict(labels)["search"], dict(labels)["outcome"]): value for labels, value in found.items()}


def test_metrics_count_what_the_answer_says(server: Server) -> None:
    answers: list[Any] = []
    grown = operating.grown(
        lambda: server.call("/metrics")[1],
        lambda: answers.append(asked(server, search=PLANS[1], trace=True)[1]),
    )
    spent, trace = answers[0]["usage"]["midstep"], answers[0]["midstep"]["trace"]
    pruned = sum(node["fate"] == "pruned" for node in trace["nodes"].values())

    def of(meter: str, **labels: str) -> float:
        return grown.get((meter, frozenset({"model_name": NAME, "search": "step_beam", **labels}.items())), 0)

    assert of(metrics.SEARCHES.name, outcome="answered") == 1
    assert {kind: of(metrics.SEARCH_TOKENS.name, kind=kind) for kind in ("engine", "discarded", "reward")} == {
        kind: spent[kind] for kind in ("engine", "discarded", "reward")
    }
    assert of(metrics.PRUNED.name) == pruned > 0
    assert of(f"{metrics.SEARCH.name}_count") == 1


BAD: list[tuple[str, Mapping[str, Any], str]] = [
    ("a budget of 0", {"budget": 0}, "budget = 0"),
    ("a budget of text", {"budget": "many"}, "budget = 'many'"),
    ("a width that does not divide", {"search": {"dvts": {"trees": 0}}}, "dvts.trees = 0"),
    ("a width beyond the server's", {"search": {"best_of_n": {"n": 17}}}, "limits.width): at most 16"),
    ("a separator of another type", {"separator": 7}, "separator"),
    ("a separator of nothing", {"separator": [""]}, "separator = ['']"),
    ("no separators", {"separator": []}, "separator"),
    ("a prompt over the context", {"prompt": [5] * 600}, "512"),
    ("a prompt as long as the context", {"prompt": [5] * 512}, "512"),
    ("a prompt of nothing", {"prompt": ""}, "prompt"),
    ("several prompts", {"prompt": ["a", "b"]}, "prompt"),
    ("a token that is none", {"prompt": [10**6]}, "vocab"),
    ("an unknown search", {"search": {"deep_search": {}}}, "deep_search"),
    ("two searches", {"search": {"best_of_n": {}, "dvts": {}}}, "name exactly one"),
    ("a method as a search", {"search": {"min_p": {}}}, "min_p is no search"),
    ("an unknown parameter", {"search": {"best_of_n": {"m": 2}}}, "best_of_n.m"),
    ("an unknown reward", {"reward": "yours"}, "its own: mine, nan, slow"),
    ("a reward with parameters", {"reward": {"mine": {"url": "http://evil"}}}, "reward"),
    ("no reward", {"reward": None, "search": PLANS[1]}, "none is named"),
    ("an unknown selector", {"selector": {"coin": {}}}, "coin"),
    ("a selector's bad parameter", {"selector": {"vote": {"how": "loudest"}}}, "vote.how"),
    ("more answers than candidates", {"n": 5}, "this search has 4 answers at most"),
    ("more answers than the server allows", {"n": 65}, "limits.n"),
    ("a bad method", {"methods": {"min_p": {"p": 2}}}, "p = 2"),
    ("a method that is not allowed", {"methods": {"faulty_rule": {}}}, "not allowed"),
    ("more patience than the server has", {"patience": {"tries": 20}}, "patience.tries = 20"),
    ("a hot temperature", {"temperature": -1}, "temperature = -1"),
    ("a top_p beyond 1", {"top_p": 1.5}, "top_p"),
    ("two lengths", {"max_tokens": 9}, "send one of them"),
    ("tools", {"tools": [{"type": "function"}]}, "tools: a search does not take this"),
    ("a stop", {"stop": "x"}, "stop: a search does not take this"),
    ("NaN", {"temperature": float("nan")}, "NaN"),
    ("too much", {"separator": ["x" * 70000]}, "65536"),
    ("what is no search", {"search": None}, 'no "search"'),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("body", "says"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_bad_request_is_refused_before_anything_is_generated(
    server: Server, body: Mapping[str, Any], says: str, stream: bool
) -> None:
    made = {name: n for name, n in operating.samples(server.call("/metrics")[1]).items()}
    status, answer = asked(server, **{"search": PLANS[0], "stream": stream, **body})
    assert status == 400, answer
    assert says in answer["error"]["message"], answer
    assert answer["error"].keys() >= {"message", "type", "code"}
    assert made == operating.samples(server.call("/metrics")[1])


def test_what_is_no_json_is_refused(server: Server) -> None:
    for raw in (b"{", b"[]", b'{"search": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001):
        status, text = server.call("/midstep/v1/completions", raw, KEYED)
        assert status == 400, text
        assert json.loads(text)["error"]["message"]


def test_the_key_and_the_model_are_asked_for(server: Server) -> None:
    status, text = server.call("/midstep/v1/completions", {**USUAL, "prompt": "a", "search": FILTER})
    assert status == 401, text
    status, answer = asked(server, search=FILTER, model="nobody's")
    assert status == 404, answer
    assert answer["error"]["type"] == "NotFoundError"


def test_a_reward_that_is_gone_fails_its_search_with_the_reason(server: Server) -> None:
    status, answer = asked(server, search=FILTER, reward="nan")
    assert status == 500, answer
    assert "RewardGoneError: the reward 'vowels' gave no score: a score of nan" in answer["error"]["message"]
    *_, last = streamed(server, search=FILTER, reward="nan")
    assert last["error"]["message"] == answer["error"]["message"]
    status, answer = asked(server, search=FILTER, reward="nan", patience={"gone": 0.5})
    assert status == 200, answer


def test_methods_steer_every_token(server: Server) -> None:
    """With only the best token kept, all answers are the same one, and n = 2 finds no second."""
    status, answer = asked(server, search=PLANS[0], methods={"min_p": {"p": 1.0}}, n=2)
    assert status == 200, answer
    assert len(answer["choices"]) == 1
    assert answer["midstep"]["candidates"] == 4


def test_the_example(server: Server) -> None:
    said = examples.run("search_http.py", server.url, "mine", KEY)
    assert "'discarded':" in said
    assert ", value 0." in said


def test_the_log_has_no_traceback(server: Server) -> None:
    text = server.log.read_text()
    assert "Traceback" not in text
    assert "was never retrieved" not in text
    assert "EngineDeadError" not in text
