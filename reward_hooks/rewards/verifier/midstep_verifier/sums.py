"""Sums: exact scores for reasoning-gym's `chain_sum`, without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from pydantic import Field

import midstep

SUM = re.compile(r"-?\d+(?:\s*[+-]\s*-?\d+)+")
TERM = re.compile(r"([+-]?)\s*(-?\d+)")
SAYS = re.compile(r"(?:=|\bis\b:?|[Aa]nswer:?)[\s$*\\({\[]*(?:boxed\{)?\s*(-?\d+)(?![\d,.]*\d)")


class ChainSum(midstep.Reward):
    """Says whether each step's running value is right, or whether the text up to it ends in the right answer."""

    name = "chain_sum"

    class Params(midstep.Params):
        """What is scored."""

        of: Literal["steps", "answer"] = Field(
            "steps", description="Each step's running value, or the last value of the text up to it against the answer."
        )

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Return 1.0 or 0.0 per step.

        Raises:
            ValueError: the prompt holds no sum.
        """
        if not steps:
            return []
        right = running(prompt)
        if self.params.of == "steps":
            return [float(good) for good in judged(steps, right)]
        said = [[value for step in steps[: i + 1] for value in values(step)] for i in range(len(steps))]
        return [float(bool(own) and own[-1] == right[-1]) for own in said]

    def spends(self, known: int, new: int) -> int:
        """Return 0: no model reads anything."""
        return 0


def running(question: str) -> list[int]:
    """Return the values of the question's last sum after each of its signs.

    Raises:
        ValueError: it has none.
    """
    found = SUM.findall(question)
    if not found:
        raise ValueError(f"no sum of whole numbers in {question[:80]!r}, such as 4 - 1 - 7")
    first = re.match(r"-?\d+", found[-1])
    assert first is not None
    rest = [int(sign + "1") * int(number) for sign, number in TERM.findall(found[-1][first.end() :])]
    return list(accumulate([int(first[0]), *rest]))[1:]


def values(step: str) -> list[int]:
    """Return the values that a step states: the whole numbers behind "=", "is" or "answer"."""
    return [int(value) for value in SAYS.findall(step.replace("−", "-"))]


def judged(steps: Sequence[str], right: Sequence[int]) -> list[bool]:
    """Say of each step whether its last value is a running value that had not been passed.

    Steps may be skipped or said again. One that states no value is as good as the one before it.
    """
    place, good, found = 0, True, []
    for step in steps:
        said = values(step)
        if said:
            at = next((i for i in range(place, len(right)) if right[i] == said[-1]), None)
            good, place = at is not None, place if at is None else at
        found.append(good)
    return found
