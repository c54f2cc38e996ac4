"""What every driver of a real engine must do for searches; each engine's own tests call these."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import midstep
from midstep.searching import Boundary, NothingFoundError, Prefix

PROMPT = "Once upon a time"
# Longer than a block of vLLM's prefix cache, which holds whole blocks alone.
STORY = "Once upon a time there was a girl who lived in a house by the sea. Every day she went to the shore, and"
HOT = {"temperature": 1.0}
ENDLESS = {"ignore_eos": True}
MOST = 450  # tokens of an answer that is cancelled long before

PLANS: list[dict[str, Any]] = [
    {"best_of_n": {"n": 4, "max_tokens": 24}},
    {"step_beam": {"beams": 2, "m": 2, "step_tokens": 12, "max_steps": 2}},
    {"particle_filter": {"n": 4, "step_tokens": 12, "max_steps": 2}},
    {"dvts": {"trees": 2, "m": 2, "step_tokens": 12, "max_steps": 2}},
    {"rebase": {"width": 4, "step_tokens": 12, "max_steps": 2}},
    {"early_rejection": {"beams": 1, "m": 3, "tau": 4, "step_tokens": 12, "max_steps": 2}},
]


Engines = Callable[[], Any]  # opens a driver, as a context


def over_http(engines: Engines, tried: Callable[[Any], Any]) -> None:
    """Try a driver, in an event loop of its own."""

    async def run() -> None:
        async with engines() as engine:
            await tried(engine)

    asyncio.run(run())


async def extended(engine: Any, ids: Sequence[int], seed: int, most: int, *until: str, opened: int = 0) -> Any:
    """Return one continuation, at its end."""
    prefix = Prefix(tuple(ids), opened)
    (sample,) = engine.extend([prefix], seeds=[seed], max_tokens=[most], until=until, logprobs=True)
    return await sample.end()


async def ends_its_steps(engine: Any, tokenizer: Any) -> None:
    """A separator whose characters lie in two tokens ends the step with the second one, and changes no id."""
    prompt = await engine.encode(PROMPT)
    assert tuple(tokenizer.encode(PROMPT)) == prompt
    whole = await extended(engine, prompt, 3, 20)
    assert (len(whole.ids), len(whole.logprobs), whole.ended) == (20, 20, "tokens"), whole
    assert all(logprob <= 0 for logprob in whole.logprobs)
    assert (await extended(engine, prompt, 3, 20)).ids == whole.ids
    assert (await extended(engine, prompt, 4, 20)).ids != whole.ids

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    for at in range(6, 10):
        separator = text(whole.ids[at - 1 : at])[-1:] + text(whole.ids[at : at + 1])[:1]
        if "\ufffd" in separator:
            continue
        wanted = Boundary([separator], text).find(whole.ids)
        assert wanted is not None
        step = await extended(engine, prompt, 3, 20, separator)
        if text(step.ids).startswith(separator):
            continue  # the server takes it for a step; a search goes on behind it
        assert (step.ids, step.ended) == (whole.ids[:wanted], "step"), separator


def letters(prompt: str, steps: list[str]) -> list[float]:
    """Score steps by their share of vowels."""
    assert prompt in (PROMPT, STORY)
    return [sum(c in "aeiou" for c in step) / max(len(step), 1) for step in steps]


async def searched(engine: Any, seed: int, **more: Any) -> midstep.Result:
    """Search once."""
    usual: dict[str, Any] = {"reward": letters, "separator": " the", "budget": 400}
    return await midstep.search(engine, STORY, seed=seed, **{**usual, **more})


async def searches(engine: Any, **plan: Any) -> None:
    """One seed, one result; what it spent is what its answers have, and no more than the budget."""
    first, again, other = [await searched(engine, seed, **plan) for seed in (1, 1, 2)]
    assert (first.candidates, first.weights) == (again.candidates, again.weights)
    assert first.candidates != other.candidates
    assert 0 < first.spent.engine <= 400
    assert first.spent.cached is not None
    if "best_of_n" not in plan:
        assert again.spent.cached > 0, again.spent


async def knows_no_cache(engine: Any) -> None:
    """Where there is no prefix cache to be read, nothing is said of it."""
    result = await searched(engine, 1, **PLANS[1])
    assert result.spent.cached is None, result.spent
    assert 0 < result.spent.sent <= result.spent.prompt


async def cancels(engine: Any, running: Callable[[], float]) -> None:
    """One of three is cancelled: the others end as they would have, and nothing runs on."""
    prompt = await engine.encode(PROMPT)
    samples = engine.extend([Prefix(prompt)] * 3, seeds=[1, 2, 3], max_tokens=[30, MOST, 30], sampling=ENDLESS)
    begun = await samples[1].reach(4)
    assert len(begun.ids) == 4
    samples[1].cancel()
    ends = await asyncio.gather(*(sample.end() for sample in samples))
    assert [end.ended for end in ends] == ["tokens", "cancelled", "tokens"]
    (alone,) = engine.extend([Prefix(prompt)], seeds=[1], max_tokens=[30], sampling=ENDLESS)
    assert ends[0].ids == (await alone.end()).ids
    assert ends[1].made < MOST
    await nothing_runs(running)


async def nothing_runs(running: Callable[[], float]) -> None:
    """Within a second nothing is left of what was asked for."""
    deadline = time.monotonic() + 1
    while (left := await asyncio.to_thread(running)) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert left == 0


async def cancelled_search_leaves_nothing(engine: Any, running: Callable[[], float]) -> None:
    """Whoever waits for a search goes away: every continuation ends in the engine."""
    more: dict[str, Any] = {"reward": letters, "sampling": ENDLESS, "separator": "\n\n\n\n"}
    plan = {"particle_filter": {"n": 4, "step_tokens": MOST}}
    search = asyncio.create_task(midstep.search(engine, PROMPT, **more, **plan))
    while not await asyncio.to_thread(running):
        assert not search.done(), search
        await asyncio.sleep(0.05)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    await nothing_runs(running)


async def methods_reach_the_engine(engine: Any) -> None:
    """A method of the call acts on each token."""
    plain, narrow = [await _plain(engine, **more) for more in ({}, {"methods": {"min_p": {"p": 1.0}}})]
    assert len({candidate.ids for candidate in narrow.candidates}) == 1  # only the best token stays
    assert len({candidate.ids for candidate in plain.candidates}) == 2


async def refuses(engine: Any, bad_method: str, too_long: str) -> None:
    """What the engine refuses ends the search with its words; what is refused before is not sent.

    Args:
        bad_method: a pattern of what is said of min_p with p = 2.
        too_long: of what is said of a prompt beyond the context.
    """
    with pytest.raises(NothingFoundError, match=bad_method):
        await _plain(engine, methods={"min_p": {"p": 2}})
    with pytest.raises(NothingFoundError, match=too_long):
        await midstep.search(engine, [5] * 2000, best_of_n={"n": 2, "max_tokens": 8})
    for wrong, says in ((dict(separator=""), "separator = ''"), (dict(budget=0), "budget = 0")):
        with pytest.raises(ValueError, match=says):
            await _plain(engine, **wrong)


async def fills_the_context(engine: Any, context: int) -> None:
    """An answer that has no more room ends there with "length", and is none the worse for it."""
    (sample,) = engine.extend([Prefix((5,) * (context - 10))], seeds=[1], max_tokens=[64], sampling=ENDLESS)
    end = await sample.end()
    assert end.ended == "length", end
    assert 8 <= len(end.ids) <= 10


async def dies(engine: Any, kill: Callable[[], None]) -> None:
    """The engine is killed in mid-search: every branch is lost, the text says why, and nothing hangs."""
    plan = {"particle_filter": {"n": 4, "step_tokens": MOST}}
    more: dict[str, Any] = {"reward": letters, "sampling": ENDLESS, "separator": "\n\n\n\n"}
    begun = asyncio.Event()

    async def watched(prompt: Any, **asked: Any) -> midstep.Result:
        samples = engine.extend([Prefix(prompt)], seeds=[1], max_tokens=[MOST], sampling=ENDLESS)
        await samples[0].reach(4)
        begun.set()
        ended = (await samples[0].end()).ended
        assert ended == "fault", ended
        return await search

    prompt = await engine.encode(PROMPT)
    search = asyncio.create_task(midstep.search(engine, prompt, question=PROMPT, **more, **plan))
    watching = asyncio.create_task(watched(prompt))
    await begun.wait()
    await asyncio.to_thread(kill)
    with pytest.raises(NothingFoundError, match=r"all 4 answers were lost: \w*Error"):
        await asyncio.wait_for(watching, 20)


async def _plain(engine: Any, **more: Any) -> midstep.Result:
    return await midstep.search(engine, PROMPT, best_of_n={"n": 2, "max_tokens": 8}, **more)
