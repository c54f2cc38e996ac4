"""Tokens: what may be spent, by whom, and what was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Spent:
    """Tokens of one search.

    Args:
        engine: that the engine is known to have made.
        reward: that the reward was sent, every try counted.
        discarded: of the engine's, those that are in no answer's text: behind a separator, cancelled, or looked ahead.
        prompt: of prefixes that were sent to the engine.
        cached: of these, from its prefix cache; None: the engine does not say.
        calls: of the engine.
    """

    engine: int = 0
    reward: int = 0
    discarded: int = 0
    prompt: int = 0
    cached: int | None = None
    calls: int = 0


class Purse:
    """Tokens that one branch may spend; None: as many as it likes. Nothing is taken that is not there."""

    def __init__(self, tokens: int | None) -> None:
        self.left = tokens

    def take(self, tokens: int) -> bool:
        """Take tokens out, if there are so many; say whether."""
        if self.left is None:
            return True
        if tokens > self.left:
            return False
        self.left -= tokens
        return True

    def give(self, tokens: int) -> None:
        """Put tokens back that were taken and not spent."""
        if self.left is not None:
            self.left += tokens

    def share(self, parts: int) -> list[Purse]:
        """Return all that is left, in equal parts; the first ones get what does not divide."""
        if self.left is None:
            return [Purse(None) for _ in range(parts)]
        each, rest = divmod(self.left, parts) if parts else (0, 0)
        if parts:
            self.left = 0
        return [Purse(each + (i < rest)) for i in range(parts)]

    def collect(self, purses: list[Purse]) -> None:
        """Put back what is left in each of them."""
        for purse in purses:
            if purse.left is not None:
                self.give(purse.left)
                purse.left = 0


def affordable(left: int | None, most: int, cost: Callable[[int], int]) -> int:
    """Return the largest t <= `most` with cost(t) <= `left`, 0 where there is none; cost must not fall with t."""
    if left is None:
        return most
    low, high = 0, max(most, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if cost(middle) <= left:
            low = middle
        else:
            high = middle - 1
    return low
