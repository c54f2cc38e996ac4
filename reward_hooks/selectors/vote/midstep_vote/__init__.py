"""Voting over the answers that texts come to: majority, weighted, best of majority.

    majority    W(a) = number of texts that come to a               weighted    W(a) = sum of their scores
    best of majority    W(a) = mean (or max) of their scores, of the answers with at least alpha of all texts

Wang et al. 2022 (arXiv 2203.11171); Li et al. 2022 (arXiv 2206.02336); Di et al. 2025, "Best-of-Majority".
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

import midstep

SEAM = 1

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
SAID = re.compile(r"(?:final answer|answer)(?: is|:|=)+\s*:?\s*([^\n]+)", re.IGNORECASE)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
DRESS = re.compile(r"\\(?:left|right|!|,|;|quad|displaystyle)|\\text\{\s*\}|[\s$]")
FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}")


class Vote(midstep.Selector):
    """Weighs each candidate by what speaks for the answer that it comes to."""

    name = "vote"

    class Params(midstep.Params):
        """What a search may set."""

        how: Literal["majority", "weighted", "best_of_majority"] = Field("majority", description="What is summed up.")
        alpha: float = Field(
            0.005, ge=0, le=1, description="Best of majority: the share of all texts that an answer must have."
        )
        reward: Literal["mean", "max"] = Field(
            "mean", description="Best of majority: an answer's score, of its texts' scores."
        )
        equal: Literal["auto", "math_verify", "text"] = Field(
            "auto", description="What compares answers; auto: math_verify where it is installed, else text."
        )

    def weigh(self, candidates: Sequence[midstep.Candidate], params: Any) -> list[float]:
        """Return each candidate's weight; one whose text comes to no answer has none, unless none comes to any."""
        answers = [extracted(candidate.text) for candidate in candidates]
        scores = [candidate.score if candidate.score is not None else 0.0 for candidate in candidates]
        if params.how != "majority" and any(score < 0 for score in scores):
            raise ValueError(f'{params.how} takes scores from 0 up, and one is {min(scores)}; use how="majority"')
        classes = classified(answers, comparison(params.equal))
        if not any(answers):
            return [1.0 if params.how == "majority" else score for score in scores]
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


def extracted(text: str) -> str | None:
    """Return the answer that a text comes to: its last \\boxed{}, else what "the answer is", else its last number."""
    for start in reversed([match.end() for match in BOXED.finditer(text)]):
        depth = 1
        for at in range(start, len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if depth == 0:
                return text[start:at].strip() or None
    said = SAID.findall(text)
    if said:
        number = NUMBER.search(said[-1])
        return number[0] if number else said[-1].strip().rstrip(".") or None
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else None


def plain(answer: str) -> str:
    """Return an answer without its dress: LaTeX's spaces, a currency, a number's form (1,000.0 is 1000, 2/4 is 1/2)."""
    bare = FRACTION.sub(r"\1/\2", DRESS.sub("", answer)).rstrip(".").removesuffix("\\%").removesuffix("%").lower()
    try:
        return str(Fraction(bare.replace(",", "")))
    except (ValueError, ZeroDivisionError):
        return bare


def classified(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> list[int | None]:
    """Return each answer's class; two are of one class if a chain of equal ones joins them, whatever their order."""
    texts = sorted({answer for answer in answers if answer})
    root = {text: i for i, text in enumerate(texts)}
    for i, text in enumerate(texts):
        for other in texts[:i]:
            if root[text] != root[other] and same(text, other):
                low, high = sorted((root[text], root[other]))
                root = {key: low if value == high else value for key, value in root.items()}
    return [root[answer] if answer else None for answer in answers]


def comparison(equal: str) -> Callable[[str, str], bool]:
    """Return what says whether two answers are the same.

    Raises:
        ValueError: math_verify is asked for and is not installed.
    """
    there = find_spec("math_verify") is not None
    if equal == "math_verify" and not there:
        raise ValueError(
            "equal = 'math_verify', and it is not installed; pip install math-verify, or send equal = 'text'"
        )
    return _same_maths if there and equal != "text" else _same_text


def _same_text(one: str, other: str) -> bool:
    return plain(one) == plain(other)


def _same_maths(one: str, other: str) -> bool:
    import math_verify

    if _same_text(one, other):
        return True
    # verify takes the gold answer first and is not symmetric
    return any(
        math_verify.verify(_parsed(a), _parsed(b), timeout_seconds=None) for a, b in ((one, other), (other, one))
    )


@cache
def _parsed(answer: str) -> Any:
    import math_verify

    # its time-outs are signals, which work in the main thread only
    return math_verify.parse(f"${answer}$", parsing_timeout=None)


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Selector]]:
    """Offer the selector."""
    return [Vote]
