"""An outsider's rewards: one by a rule on the text, and those that fail in every way. A test installs them."""

import asyncio
import os
import time
from collections.abc import Sequence

import midstep

SEAM = 1


def rule(text: str) -> float:
    """Score a step by its letters, from 0 to 1: the tests work it out again."""
    return sum(map(ord, text)) % 100 / 100


class Judged(midstep.Reward):
    """Scores each step by `rule`, after `wait` seconds."""

    name = "judged"

    class Params(midstep.Params):
        """What a server may set."""

        wait: float = 0.0

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score the steps."""
        await asyncio.sleep(self.params.wait)
        return [rule(step) for step in steps]


class Sleeps(midstep.Reward):
    """Never answers."""

    name = "judged_sleeps"

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Sleep."""
        await asyncio.sleep(10_000)
        return []


class Blocks(midstep.Reward):
    """Never answers, and lets nobody else have the loop."""

    name = "judged_blocks"

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Sleep as asyncio code must not."""
        time.sleep(10_000)
        return []


class Raises(midstep.Reward):
    """Fails at each try."""

    name = "judged_raises"

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Raise."""
        raise RuntimeError("this reward raises")


class Dies(midstep.Reward):
    """Ends its process."""

    name = "judged_dies"

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Exit."""
        os._exit(3)


@midstep.hookimpl
def reward_hooks() -> list[type[midstep.Reward]]:
    """Return the rewards."""
    return [Judged, Sleeps, Blocks, Raises, Dies]
