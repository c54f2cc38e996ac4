"""A server's side of a search, on the scripted engine: what it admits, tells and counts, whatever the web framework."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from toy import installed

import midstep
from midstep import metrics
from midstep.configuration import Configuration
from midstep.searching import Result
from midstep.serving import ChatBody, CompletionBody, Run, Seat, Service, fault, read
from midstep.serving.answer import Shape, ranked
from midstep.serving.progress import MOST, Progress
from midstep.testing.scripted import PROMPT, ScriptedEngine

BODY: dict[str, Any] = {"prompt": "How many?", "search": {"best_of_n": {"n": 4}}, "reward": "mine", "seed": 1}


class Lengths(midstep.Reward):
    """Likes long steps."""

    name = "lengths"
    made: ClassVar[int] = 0
    closed: ClassVar[int] = 0

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        type(self).made += 1

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        return [min(len(step) / 100, 1.0) for step in steps]

    async def close(self) -> None:
        type(self).closed += 1


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    Lengths.made = Lengths.closed = 0
    with installed(reward_hooks=[Lengths]):
        yield


def service(**settings: Any) -> Service:
    return Service(Configuration.model_validate({"rewards": {"mine": {"use": "lengths"}}, **settings}), "a model")


def asked(**body: Any) -> CompletionBody:
    read_body = read(json.dumps({**BODY, **body}).encode(), CompletionBody, Configuration().limits)
    assert isinstance(read_body, CompletionBody)
    return read_body


def begun(own: Service, engine: Any, **body: Any) -> Run:
    request = asked(**body)
    return Run(own, request, own.admit(request), Seat(engine, PROMPT, "How many?"), Shape(False, "cmpl-1", "a model"))


def run(tried: Callable[[], Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(tried(), 20)

    return asyncio.run(bounded())


def parsed(events: Sequence[str]) -> list[dict[str, Any]]:
    assert events[-1] == "data: [DONE]\n\n"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1] if event.startswith("data: ")]


def test_an_answer_is_that_of_the_search() -> None:
    async def tried() -> None:
        answer = await begun(service(), ScriptedEngine(), n=2, trace=True).answer()
        found = await midstep.search(ScriptedEngine(), PROMPT, best_of_n={"n": 4}, reward=Lengths(), seed=1)
        assert [choice["text"] for choice in answer["choices"]] == [made.text for made, _ in ranked(found, 2)]
        assert answer["choices"][0]["finish_reason"] == "stop"
        usage = answer["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(PROMPT), found.spent.engine)
        assert usage["total_tokens"] == len(PROMPT) + found.spent.engine + found.spent.reward
        assert usage["midstep"]["sent"] == found.spent.sent > 0
        assert usage["midstep"]["computed"] is None
        assert answer["midstep"]["reward"] == "mine"
        assert answer["midstep"]["weights"] == sorted(found.weights, reverse=True)[:2]
        assert answer["midstep"]["trace"]["nodes"] == found.trace["nodes"]

    run(tried)


def test_a_stream_begins_at_once_and_ends_with_the_answer() -> None:
    async def tried() -> None:
        whole = await begun(service(), ScriptedEngine(), n=2).answer()
        under_way = begun(service(), ScriptedEngine(), n=2, stream_options={"include_usage": True})
        await under_way.begun()
        chunks = parsed([event async for event in under_way.events()])
        assert chunks[0]["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": None}]
        nodes = {name: node for chunk in chunks for name, node in chunk.get("midstep", {}).get("nodes", {}).items()}
        assert nodes.keys() == {"0", "1", "2", "3"}
        texts = ["".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == i) for i in (0, 1)]
        assert texts == [choice["text"] for choice in whole["choices"]]
        assert chunks[-1]["usage"] == whole["usage"]
        assert chunks[-2]["midstep"]["weights"] == whole["midstep"]["weights"]

    run(tried)


def test_a_slow_client_holds_no_more_than_the_newest_of_each_node() -> None:
    progress = Progress()
    for i in range(MOST + 9):
        progress.note(str(i), {"fate": "grown"})
    progress.note(str(MOST), {"fate": "pruned"})
    told = progress.take()
    assert (len(told["nodes"]), told["dropped"]) == (MOST, 9)
    assert list(told["nodes"].items())[-1] == (str(MOST), {"fate": "pruned"})
    assert progress.take() == {}


def test_a_client_who_reads_nothing_does_not_hold_up_the_search() -> None:
    async def tried() -> None:
        under_way = begun(service(), ScriptedEngine(), search={"step_beam": {"beams": 2, "m": 2}})
        events = under_way.events()
        await anext(events)
        await under_way.answer()
        chunks = parsed([event async for event in events])
        assert sum("nodes" in chunk.get("midstep", {}) for chunk in chunks) == 1

    run(tried)


def test_a_cancelled_search_leaves_nothing_in_the_engine() -> None:
    prometheus = pytest.importorskip("prometheus_client")

    def cancelled() -> float:
        labels = {"model_name": "a model", "search": "best_of_n", "outcome": "cancelled"}
        return prometheus.REGISTRY.get_sample_value(metrics.SEARCHES.name, labels) or 0.0

    async def tried() -> None:
        own, engine, before = service(), ScriptedEngine(steps=1000), cancelled()
        under_way = begun(own, engine)
        await under_way.begun()
        await asyncio.sleep(0)
        assert engine.running == 4
        under_way.cancel()
        events = [event async for event in under_way.events()]
        assert "CancelledError" in events[1]
        assert (engine.running, own.running) == (0, set())
        assert cancelled() == before + 1

    run(tried)


def test_what_fails_is_the_streams_last_word() -> None:
    async def tried() -> None:
        under_way = begun(service(), ScriptedEngine(dies=lambda call: "no power"))
        *_, last = parsed([event async for event in under_way.events()])
        assert last["error"]["code"] == 500
        assert "NothingFoundError: all 4 answers were lost: ConnectionError: no power" in last["error"]["message"]

    run(tried)


def test_what_the_search_itself_refuses_is_known_before_the_stream() -> None:
    async def tried() -> None:
        with pytest.raises(ValueError, match=r"limits\.reward_tokens"):
            await begun(service(limits={"reward_tokens": 3}), ScriptedEngine()).begun()

    run(tried)


def test_a_reward_is_made_once_for_all_requests_and_closed_with_the_server() -> None:
    async def tried() -> None:
        own = service()
        await asyncio.gather(*(begun(own, ScriptedEngine(), seed=seed).answer() for seed in range(3)))
        assert (Lengths.made, Lengths.closed) == (1, 0)
        left = begun(own, ScriptedEngine(steps=1000))
        await left.begun()
        await own.close()
        assert (Lengths.closed, own.running) == (1, set())

    run(tried)


def test_a_seed_that_nobody_names_is_told() -> None:
    async def tried() -> None:
        answer = await begun(service(), ScriptedEngine(), seed=None).answer()
        again = await begun(service(), ScriptedEngine(), seed=answer["midstep"]["seed"]).answer()
        assert answer["choices"] == again["choices"]

    run(tried)


@pytest.mark.parametrize(
    ("body", "settings", "says"),
    [
        ({"n": 3}, {"limits": {"n": 2}}, r"n = 3; allowed on this server: 2 \(limits\.n\)"),
        ({"n": 5}, {}, "n = 5; this search has 4 answers at most"),
        ({}, {"limits": {"width": 3}}, r"limits\.width"),
        ({}, {"allow": ["vote"]}, "best_of_n is not allowed on this server; allowed: vote"),
        ({"selector": {"vote": {}}}, {"allow": ["best_of_n"]}, "vote is not allowed on this server"),
        ({"selector": {"vote": {"how": 1}}}, {}, r"vote\.how = 1"),
        ({"selector": {"collaborative": {"lax": True}}}, {}, "lax = True: no request may set this"),
        ({"selector": {"collaborative": {"seconds": 9.0}}}, {}, r"seconds = 9\.0: no request may set this"),
        ({"reward": "yours"}, {}, "this server's own rewards: mine"),
        ({"reward": None, "search": {"dvts": {}}}, {}, "dvts goes by a reward, and none is named; .* rewards: mine"),
        ({"patience": {"timeout": 60}}, {}, r"patience\.timeout = 60.0; allowed on this server: up to 30.0"),
        ({"methods": {"no_method": {}}}, {}, "no_method"),
        ({"max_tokens": 9, "search": {"best_of_n": {"n": 4, "max_tokens": 8}}}, {}, "send one of them"),
    ],
)
def test_what_a_server_does_not_allow(body: Any, settings: Any, says: str) -> None:
    own, request = service(**settings), asked(**body)
    with pytest.raises(ValueError, match=says):
        own.admit(request)


def test_max_tokens_is_the_searchs_own_and_patience_may_be_less() -> None:
    plan = service().admit(asked(max_completion_tokens=7, patience={"tries": 1, "gone": "drop"}))
    assert plan.plan == {"best_of_n": {"n": 4, "max_tokens": 7}}
    assert (plan.patience["tries"], plan.patience["gone"], plan.patience["timeout"]) == (1, "drop", 30.0)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{", "not JSON"),
        (b"3", "int, not an object"),
        (b'{"search": {}, "prompt": "a", "temperature": Infinity}', "Infinity"),
        (b'{"prompt": "a"}', 'no "search"'),
        (b'{"search": {}, "prompt": "a", "stop": "x"}', "stop: a search does not take this"),
        (b'{"search": {}, "messages": [{}]}', "messages: a search does not take this"),
        (b'{"search": {}}', "prompt"),
        (b'{"search": {}, "prompt": "a", "n": "2"}', "n = '2'"),
        (b'{"search": {}, "prompt": "a", "reward": {"lengths": {}}}', "reward"),
        (b'{"search": {}, "prompt": "a", "separator": "' + b"x" * 70000 + b'"}', "65536"),
        (b'{"search": ' + b'{"a":' * 100000 + b"1" + b"}" * 100000 + b', "prompt": "a"}', "not JSON"),
    ],
)
def test_a_body_that_cannot_be_read(raw: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(raw, CompletionBody, Configuration().limits)


def test_what_clients_send_unasked_is_left_alone() -> None:
    sent = {"messages": [{"role": "user", "content": "Hi"}], "search": {"best_of_n": {}}, "user": "me", "stop": None}
    found = read(json.dumps({**sent, "logprobs": False, "frequency_penalty": 0.0}).encode(), ChatBody, service_limits())
    assert isinstance(found, ChatBody)
    assert found.sampling == {}


def service_limits() -> Any:
    return Configuration().limits


def test_equal_texts_are_one_answer() -> None:
    made = [midstep.Candidate(text) for text in ("a", "b", "a", "c")]
    best = ranked(Result(tuple(made), (0.1, 0.5, 0.4, 0.5)), 3)
    assert [(candidate.text, weight) for candidate, weight in best] == [("b", 0.5), ("c", 0.5), ("a", 0.4)]


def test_a_fault_says_whose_it_is() -> None:
    assert fault(ValueError("n = 0"))["error"] | {"param": None} == {
        "message": "n = 0",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    assert fault(RuntimeError("dead"))["error"]["message"] == "RuntimeError: dead"
