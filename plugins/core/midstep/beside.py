"""The kinds of method that run beside the engine, never in its loop: rewards, selectors and searches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .methods import Method


class Reward(Method):
    """Scores the steps of an answer; runs beside the engine, never in its loop."""

    @abstractmethod
    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Return one score per step; more is better. A reward for outcomes scores the text up to each step."""


@dataclass(frozen=True)
class Candidate:
    """One finished answer: its text, the scores of its steps, and the sum of its tokens' logprobs."""

    text: str
    scores: tuple[float, ...] = ()
    logprob: float = 0.0


class Selector(Method):
    """Weighs finished answers."""

    @abstractmethod
    def weigh(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return one weight >= 0 per candidate; the answer with the largest weight in all is chosen."""


@dataclass(frozen=True)
class Continuation:
    """What an engine added to a prefix: token ids, their text, and whether the answer ended there."""

    ids: tuple[int, ...]
    text: str
    ended: bool


class Engine(Protocol):
    """What a search needs of an engine."""

    async def extend(
        self, prefix: Sequence[int], *, seed: int, max_tokens: int, until: Sequence[str] = ()
    ) -> Continuation:
        """Continue `prefix` (token ids) to one of the texts `until`, to `max_tokens`, or to the end of the answer."""


@dataclass(frozen=True)
class Result:
    """What a search found: the candidates with their weights, and the tokens it spent on the engine."""

    candidates: tuple[Candidate, ...]
    weights: tuple[float, ...]
    tokens: int


class Search(Method):
    """Spends a budget of continuations on one prompt."""

    @abstractmethod
    async def run(self, engine: Engine, prompt: Sequence[int], reward: Reward, seed: int, params: Any) -> Result:
        """Search; the same seed on the same engine gives the same result."""
