"""The laws of rewards."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from ..beside import Reward
from ..methods import Params

QUESTION = "What is 2 + 3?"
STEPS = ("First, add 2 and 3.", "That gives 5.", "The answer is 5.")
# A reward's model may round otherwise in another batch.
CLOSE = 1e-3


def scores_each_step(method: type[Reward], params: Params) -> None:
    """Law: one finite score per step, the same each time, and none for no steps."""
    first, again, none = _scored(method, params, STEPS, STEPS, ())
    about = f"{method.name}({params})"
    assert len(first) == len(STEPS), f"{about}: {len(first)} scores for {len(STEPS)} steps"
    assert all(isinstance(s, float) and math.isfinite(s) for s in first), (
        f"{about}: scores {first} are not finite floats"
    )
    assert _close(first, again), f"{about}: the same steps were scored {first} and then {again}"
    assert none == [], f"{about}: no steps were scored {none}"


def scores_by_what_is_before(method: type[Reward], params: Params) -> None:
    """Law: a step's score does not depend on what comes after it, so that what was scored once stays known."""
    whole, *begins = _scored(method, params, STEPS, *(STEPS[:count] for count in range(1, len(STEPS))))
    for count, begin in enumerate(begins, 1):
        assert _close(begin, whole[:count]), (
            f"{method.name}({params}): {count} steps were scored {begin}; where more came after them, {whole[:count]}"
        )


def scores_a_batch_alike(method: type[Reward], params: Params) -> None:
    """Law: answers are scored together as they are alone, each in its place."""
    asked = [(QUESTION, STEPS[:1]), (QUESTION, STEPS), (QUESTION, ()), (QUESTION, STEPS[:2])]

    async def run(reward: Reward) -> list[list[float]]:
        return await reward.score_many(asked)

    together = _with(method, params, run)
    for (_, steps), scores, own in zip(asked, together, _scored(method, params, *(s for _, s in asked)), strict=True):
        assert _close(scores, own), (
            f"{method.name}({params}): {len(steps)} steps were scored {own} alone, and {scores} in a batch"
        )


def _scored(method: type[Reward], params: Params, *answers: Sequence[str]) -> list[list[float]]:
    async def run(reward: Reward) -> list[list[float]]:
        return [await reward.score(QUESTION, steps) for steps in answers]

    return _with(method, params, run)


def _with(
    method: type[Reward], params: Params, run: Callable[[Reward], Awaitable[list[list[float]]]]
) -> list[list[float]]:
    async def made() -> list[list[float]]:
        reward = method(params)
        try:
            return await run(reward)
        finally:
            await reward.close()

    return asyncio.run(made())


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(math.isclose(a, b, abs_tol=CLOSE) for a, b in zip(one, other, strict=True))


OF_REWARDS: Mapping[str, Callable[[type[Reward], Params], None]] = MappingProxyType(
    {
        "one finite score per step": scores_each_step,
        "a step's score depends on nothing after it": scores_by_what_is_before,
        "a batch is scored as its answers alone": scores_a_batch_alike,
    }
)
