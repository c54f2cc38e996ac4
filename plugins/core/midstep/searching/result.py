"""What a search found, and what it spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..beside import Candidate
from .budget import Spent
from .path import Path


@dataclass(frozen=True)
class Result:
    """What a search found.

    Args:
        candidates: the answers.
        weights: one >= 0 per candidate.
        spent: the tokens of engine and reward.
        trace: the tree with its scores, what was pruned and why, as JSON takes it.
    """

    candidates: tuple[Candidate, ...]
    weights: tuple[float, ...]
    spent: Spent = field(default_factory=Spent)
    trace: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def best(self) -> Candidate:
        """Return the first of the candidates with the largest weight."""
        return self.candidates[max(range(len(self.weights)), key=lambda i: self.weights[i])]

    @property
    def text(self) -> str:
        """Return the text of the best candidate."""
        return self.best.text


class NothingFoundError(RuntimeError):
    """Every branch of a search was lost."""


def found(paths: Sequence[Path], scores: Sequence[float | None]) -> Result:
    """Return paths as candidates, weighed by their scores; what was cut off weighs nothing beside what was finished.

    Scores are weights as they are; where one is below 0, the weights are exp(score - best).

    Raises:
        NothingFoundError: all paths are dead.
    """
    alive = [(path, score) for path, score in zip(paths, scores, strict=True) if not path.dead]
    if not alive:
        faults = sorted({path.fault for path in paths}) or ["there was none"]
        raise NothingFoundError(f"all {len(paths)} answers were lost: {'; '.join(faults[:3])}")
    known = [score for _, score in alive if score is not None]
    top, below = max(known, default=0.0), any(score < 0 for score in known)
    finished = any(path.ended == "end" for path, _ in alive)
    weights = []
    for path, score in alive:
        weight = 1.0 if score is None else math.exp(score - top) if below else score
        weights.append(weight if path.ended == "end" or not finished else 0.0)
    return Result(tuple(candidate(path, score) for path, score in alive), tuple(weights))


def candidate(path: Path, score: float | None) -> Candidate:
    """Return a path as a candidate."""
    return Candidate(path.text, path.scores, path.logprob, path.ids, score, path.ended or "steps")
