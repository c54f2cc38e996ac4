"""Copies of one prefix in one request: the same tokens as one by one, sent once, ended as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import midstep
from midstep.drivers.sharing import Choice, Sharing, runs
from midstep.searching import Call, Piece, Prefix, Streaming
from midstep.testing.scripted import PROMPT, NumberReward, ScriptedEngine

PLANS: dict[str, dict[str, Any]] = {
    "best_of_n": {"n": 6},
    "step_beam": {"beams": 2, "m": 3},
    "particle_filter": {"n": 6},
    "dvts": {"trees": 2, "m": 3},
    "rebase": {"width": 6},
    "early_rejection": {"beams": 2, "m": 3, "tau": 2},
}


class Copying(Streaming):
    """The scripted engine behind requests of several choices, whose tokens come in turn, and which end as one.

    Args:
        most: choices of a request.
        fails: a request fails after so many tokens of each.
    """

    def __init__(self, most: int = 32, fails: int | None = None) -> None:
        self.script = ScriptedEngine()
        super().__init__(self.script.tokenizer)
        self.requests, self.under_way, self.fails = list[tuple[Call, int]](), 0, fails
        self.sharing = Sharing(self.ask, most)

    def stream(self, call: Call) -> Choice:
        return self.sharing.choice(call)

    async def ask(self, call: Call, n: int) -> AsyncGenerator[tuple[int, Piece]]:
        self.requests.append((call, n))
        self.under_way += 1
        answers, going = [list(call.ids) for _ in range(n)], list(range(n))
        try:
            for made in range(1, call.max_tokens + 1):
                for i in list(going):
                    await asyncio.sleep(0)
                    if self.fails is not None and made > self.fails:
                        raise ConnectionError("no server")
                    one = Call(call.ids, call.seed + i, call.max_tokens, call.until, call.sampling)
                    answers[i].append(self.script.next(answers[i], one))
                    self.script.tokens += 1
                    ended = self._ended(answers[i], call, made)
                    if ended is not None:
                        going.remove(i)
                    yield i, Piece((answers[i][-1],), (), ended)
        finally:
            self.under_way -= 1

    def _ended(self, ids: list[int], call: Call, made: int) -> Any:
        """A server stops by itself at a separator that its own text holds."""
        text = self.tokenizer.decode(ids[len(call.ids) :])
        if ids[-1] == 0:
            return "end"
        if any(separator in text for separator in call.until):
            return "step"
        return "length" if made == call.max_tokens else None


def search(engine: Any, name: str, **more: Any) -> midstep.Result:
    return asyncio.run(midstep.search(engine, PROMPT, reward=NumberReward(), **{name: PLANS[name]}, **more))


@pytest.mark.parametrize("name", PLANS)
def test_a_search_is_the_same_shared_or_not(name: str) -> None:
    """The same answers; what is sent is less, and never more than the whole; all that the engine made is counted."""
    shared, alone = Copying(), Copying(1)
    result, single = search(shared, name, budget=2000), search(alone, name, budget=2000)
    assert result.candidates == single.candidates
    spent = result.spent
    assert (spent.calls, spent.prompt, single.spent.sent) == (single.spent.calls, single.spent.prompt, spent.prompt)
    assert spent.sent == sum(len(call.ids) for call, _ in shared.requests)
    assert spent.calls == sum(n for _, n in shared.requests)
    assert (spent.sent < spent.prompt) is (name != "early_rejection")
    assert result.trace["spent"]["sent"] == spent.sent
    assert shared.under_way == alone.under_way == 0
    assert spent.engine == shared.script.tokens == alone.script.tokens


def test_only_consecutive_seeds_are_one_request() -> None:
    assert runs([3, 4, 5, 9, 10, 10, 12], 2) == [range(0, 2), range(2, 3), range(3, 5), range(5, 6), range(6, 7)]
    assert runs([], 2) == []


def extend(engine: Copying, seeds: list[int], most: int, **more: Any) -> list[Any]:
    prefixes = [Prefix(PROMPT)] * len(seeds)
    return engine.extend(prefixes, seeds=seeds, max_tokens=[most] * len(seeds), share=True, **more)


def test_one_that_is_cancelled_runs_to_its_end_and_is_counted() -> None:
    async def run() -> None:
        engine = Copying()
        first, second = extend(engine, [4, 5], 30)
        await second.reach(2)
        second.cancel()
        whole = await first.end()
        await asyncio.gather(first.gone(), second.gone())
        ended = await second.end()
        assert ended.ended == "cancelled"
        assert (await second.end()).made > len(ended.ids)
        assert ended.made + whole.made == engine.script.tokens
        assert [n for _, n in engine.requests] == [2]

    asyncio.run(run())


def test_when_all_are_cancelled_the_request_ends_at_once() -> None:
    async def run() -> None:
        engine = Copying()
        engine.script.steps = 10_000
        samples = extend(engine, [4, 5, 6], 50_000)
        await samples[0].reach(1)
        for sample in samples:
            sample.cancel()
        await asyncio.wait_for(asyncio.gather(*(sample.gone() for sample in samples)), 1)
        assert engine.under_way == 0
        assert engine.script.tokens < 100

    asyncio.run(run())


def test_one_that_is_cancelled_before_it_began_is_not_asked_for() -> None:
    async def run() -> None:
        engine = Copying()
        samples = extend(engine, [4, 5, 6], 20)
        samples[1].cancel()
        assert (await samples[1].end()).ended == "cancelled"
        assert (await samples[0].end()).ids
        assert [n for _, n in engine.requests] == [1, 1]  # 4 and 6 do not follow each other
        await samples[2].end()

    asyncio.run(run())


def test_a_request_that_fails_fails_all_of_its_continuations() -> None:
    async def run() -> None:
        engine = Copying(fails=2)
        ends = [await sample.end() for sample in extend(engine, [4, 5, 6], 20)]
        assert {(end.ended, end.fault, end.made) for end in ends} == {("fault", "ConnectionError: no server", 2)}
        assert engine.under_way == 0

    asyncio.run(run())


def test_what_differs_in_more_than_the_seed_is_not_shared() -> None:
    async def run() -> None:
        engine = Copying()
        asked: list[dict[str, Any]] = [{}, {"until": ("\n",)}, {"sampling": {"temperature": 0.5}}, {"logprobs": True}]
        samples = [extend(engine, [i], 9, **more)[0] for i, more in enumerate(asked)]
        samples += extend(engine, [9], 8)
        samples += engine.extend([Prefix(PROMPT)], seeds=[10], max_tokens=[8])
        for sample in samples:
            await sample.end()
        assert [n for _, n in engine.requests] == [1] * 6

    asyncio.run(run())
