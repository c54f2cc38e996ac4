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
        prompt: of prefixes that the engine was asked to continue.
        sent: of these, what was sent to it: copies of one prefix may go as one.
        cached: of what was sent, from its prefix cache; None: the engine does not say.
        calls: continuations that it was asked for.
    """

    engine: int = 0
    reward: int = 0
    discarded: int = 0
    prompt: int = 0
    sent: int = 0
    cached: int | None = None
    calls: int = 0


class Purse:
    """Tokens that one branch may spend; None: as many as it likes. Nothing is taken that is not there.

    Args:
        tokens: for engine and reward together.
        reward: of these at most so many for the reward.
    """

    def __init__(self, tokens: int | None, reward: int | None = None) -> None:
        self.left, self.reward = tokens, reward

    def take(self, tokens: int, *, reward: bool = False) -> bool:
        """Take tokens out, if there are so many; say whether.

        Args:
            reward: they are the reward's.
        """
        if not self.holds(tokens, tokens if reward else 0):
            return False
        if self.left is not None:
            self.left -= tokens
        if reward and self.reward is not None:
            self.reward -= tokens
        return True

    def holds(self, tokens: int, reward: int) -> bool:
        """Say whether there are so many tokens, `reward` of them for the reward."""
        return (self.left is None or tokens <= self.left) and (self.reward is None or reward <= self.reward)

    def give(self, tokens: int) -> None:
        """Put tokens back that were taken and not spent."""
        if self.left is not None:
            self.left += tokens

    def share(self, parts: int) -> list[Purse]:
        """Return all that is left, in equal parts; the first ones get what does not divide."""
        shares = [Purse(*both) for both in zip(_shares(self.left, parts), _shares(self.reward, parts), strict=True)]
        if parts:
            self.left, self.reward = None if self.left is None else 0, None if self.reward is None else 0
        return shares

    def collect(self, purses: list[Purse]) -> None:
        """Put back what is left in each of them."""
        for purse in purses:
            if purse.left is not None:
                self.give(purse.left)
                purse.left = 0
            if self.reward is not None and purse.reward is not None:
                self.reward, purse.reward = self.reward + purse.reward, 0


def _shares(tokens: int | None, parts: int) -> list[int | None]:
    if tokens is None:
        return [None] * parts
    each, rest = divmod(tokens, parts) if parts else (0, 0)
    return [each + (i < rest) for i in range(parts)]


def affordable(purse: Purse, most: int, cost: Callable[[int], tuple[int, int]]) -> int:
    """Return the largest t <= `most` that the purse pays for, 0 where there is none.

    Args:
        cost: the tokens of t, and how many of them are the reward's; neither may fall with t.
    """
    if purse.left is None and purse.reward is None:
        return most
    low, high = 0, max(most, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if purse.holds(*cost(middle)):
            low = middle
        else:
            high = middle - 1
    return low
