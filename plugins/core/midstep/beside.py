"""The kinds of method that run beside the engine, never in its loop: rewards, selectors and searches."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .methods import Method

if TYPE_CHECKING:
    from .searching.problem import Problem
    from .searching.result import Result


class Reward(Method):
    """Scores the steps of an answer; runs beside the engine, never in its loop.

    Args:
        params: this reward's `Params`, such as where its server is; None: their defaults.
    """

    remote: ClassVar[bool] = False  # True: a server scores, so that its laws can be tried only where there is one

    def __init__(self, params: Any = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    @abstractmethod
    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Return one score per step; more is better.

        A step's score depends on the text up to it and on nothing after it, so that what was scored once is known of
        every longer answer. A reward for outcomes scores the text up to each step.
        """

    async def score_many(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Return the scores of several (prompt, steps); a reward that scores a batch at once overrides it."""
        return list(await asyncio.gather(*(self.score(prompt, steps) for prompt, steps in asked)))

    async def close(self) -> None:
        """Let go of what it holds: connections, processes. Whoever made it calls this, once."""

    def spends(self, known: int, new: int) -> int:
        """Return the tokens that a call costs, at most.

        Args:
            known: tokens of the engine, of prompt and answer, that this reward has read before.
            new: those that it has not; a reward with a prefix cache costs these alone, a verifier without a model 0.
        """
        return known + new


@dataclass(frozen=True)
class Candidate:
    """One answer that a search found.

    Args:
        text: of the answer.
        scores: of its steps.
        logprob: the sum of its tokens' logprobs, 0 where none were asked for.
        ids: its token ids, the end token included.
        score: its steps' scores as one number; None where no reward was named.
        ended: "end": by the model; "length", "budget" or "steps": cut off there.
    """

    text: str
    scores: tuple[float, ...] = ()
    logprob: float = 0.0
    ids: tuple[int, ...] = ()
    score: float | None = None
    ended: str = "end"

    @property
    def mean_logprob(self) -> float:
        """Return the mean logprob of a token; of an answer whose ids are not known, the sum."""
        return self.logprob / max(len(self.ids), 1)


class Selector(Method):
    """Weighs finished answers."""

    @abstractmethod
    def weigh(self, candidates: Sequence[Candidate], params: Any) -> list[float] | Awaitable[list[float]]:
        """Return one weight >= 0 per candidate; the first of those with the largest weight is chosen. May be async."""

    @classmethod
    def needs_logprobs(cls, params: Any) -> bool:
        """Say whether it looks at logprobs: only then are they asked for."""
        return False


class Search(Method):
    """Spends a budget of continuations on one prompt."""

    needs_reward: ClassVar[bool] = True
    unit_scores: ClassVar[bool] = False  # True: it takes scores as probabilities, and one outside 0 to 1 is a fault

    @classmethod
    @abstractmethod
    def width(cls, params: Any) -> int:
        """Return how many continuations it keeps in flight at most; a server has a limit (`limits.width`)."""

    @abstractmethod
    async def run(self, problem: Problem, params: Any) -> Result:
        """Search; the same seed on the same engine gives the same result, whatever arrives first."""
