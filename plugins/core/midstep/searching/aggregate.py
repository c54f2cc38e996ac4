"""One number of the scores of an answer's steps (search-and-learn, Math-Shepherd, RLHFlow; specs C1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

How = Literal["last", "min", "prod", "mean", "max", "model"]
LEAST = 1e-7


def aggregate(scores: Sequence[float], how: How) -> float:
    """Return one score; -1.0 where there is none. "model": the reward was given the whole answer as one step."""
    if not scores:
        return -1.0
    if how == "prod":
        if min(scores) < 0:
            raise ValueError(f'"prod" takes scores from 0 up, and one is {min(scores)}; use "last", "min" or "mean"')
        return math.exp(math.fsum(math.log(max(score, LEAST)) for score in scores))
    if how == "mean":
        return math.fsum(scores) / len(scores)
    if how == "min":
        return min(scores)
    if how == "max":
        return max(scores)
    return scores[-1]


def odds(scores: Sequence[float], temperature: float) -> list[float]:
    """Return softmax(logit(score) / temperature), the particle filter's weights; 0 and 1 are clipped by 1e-7."""
    clipped = [min(max(score, LEAST), 1 - LEAST) for score in scores]
    return softmax([(math.log(r) - math.log(1 - r)) / temperature for r in clipped])


def softmax(values: Sequence[float]) -> list[float]:
    """Return the softmax; of none, none."""
    top = max(values, default=0.0)
    weights = [math.exp(value - top) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
