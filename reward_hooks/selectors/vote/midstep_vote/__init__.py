"""Voting over the answers that texts come to: majority, weighted, best of majority, RPC.

    majority    W(a) = number of texts that come to a               weighted    W(a) = sum of their scores
    best of majority    W(a) = mean (or max) of their scores, of the answers with at least alpha of all texts
    rpc         W(a) = sum of the probabilities of its distinct texts, unlikely ones left out (`consistency`)

Wang et al. 2022 (arXiv 2203.11171); Li et al. 2022 (arXiv 2206.02336); Di et al. 2025, "Best-of-Majority"; Zhou et al.
2025, RPC. `collaborative` (Liang et al. 2024) also runs the programs in the texts.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

import midstep

from . import consistency
from .answers import classified, comparison, extracted, plain
from .collaborative import Collaborative

SEAM = 1

__all__ = ["Collaborative", "Vote", "classified", "comparison", "extracted", "plain", "reward_hooks"]


class Vote(midstep.Selector):
    """Weighs each candidate by what speaks for the answer that it comes to."""

    name = "vote"

    class Params(midstep.Params):
        """What a search may set."""

        how: Literal["majority", "weighted", "best_of_majority", "rpc"] = Field(
            "majority", description="What is summed up."
        )
        alpha: float = Field(
            0.005, ge=0, le=1, description="Best of majority: the share of all texts that an answer must have."
        )
        reward: Literal["mean", "max"] = Field(
            "mean", description="Best of majority: an answer's score, of its texts' scores."
        )
        equal: Literal["auto", "math_verify", "text"] = Field(
            "auto", description="What compares answers; auto: math_verify where it is installed, else text."
        )

    @classmethod
    def needs_logprobs(cls, params: Any) -> bool:
        """Ask for logprobs where texts count by how likely they were."""
        return bool(params.how == "rpc")

    def weigh(self, candidates: Sequence[midstep.Candidate], params: Any) -> list[float]:
        """Return each candidate's weight; one whose text comes to no answer has none, unless none comes to any."""
        answers = [extracted(candidate.text) for candidate in candidates]
        scores = [candidate.score if candidate.score is not None else 0.0 for candidate in candidates]
        if params.how in ("weighted", "best_of_majority") and any(score < 0 for score in scores):
            raise ValueError(f'{params.how} takes scores from 0 up, and one is {min(scores)}; use how="majority"')
        classes = classified(answers, comparison(params.equal))
        likely = [math.exp(min(candidate.mean_logprob, 0.0)) for candidate in candidates]
        if not any(answers):
            alone = {"majority": [1.0] * len(scores), "rpc": likely}
            return alone.get(params.how, scores)
        if params.how == "rpc":
            shares = consistency.weighed(classes, [candidate.text for candidate in candidates], likely)
            return [0.0 if number is None else shares[number] for number in classes]
        return weights(classes, scores, params)


def weights(classes: Sequence[int | None], scores: Sequence[float], params: Any) -> list[float]:
    """Return each candidate's weight.

    Args:
        classes: the answer that each comes to, as a number; None: none.
        scores: of the candidates.
    """
    found: dict[int, list[float]] = {}
    for number, score in zip(classes, scores, strict=True):
        if number is not None:
            found.setdefault(number, []).append(score)
    counts = {number: float(len(own)) for number, own in found.items()}
    if params.how == "majority":
        totals = counts
    elif params.how == "weighted":
        totals = {number: sum(sorted(own)) for number, own in found.items()}
    else:
        totals = {n: max(own) if params.reward == "max" else sum(sorted(own)) / len(own) for n, own in found.items()}
        frequent = {n for n in found if counts[n] / len(classes) >= params.alpha}
        # where no answer is frequent enough, the majority decides
        totals = {n: total for n, total in totals.items() if n in frequent} if frequent else counts
    return [0.0 if number is None else totals.get(number, 0.0) for number in classes]


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Selector]]:
    """Offer the selectors."""
    return [Vote, Collaborative]
