"""What texts come to, and which answers are the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from typing import Any

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
SAID = re.compile(r"(?:final answer|answer)(?: is|:|=)+\s*:?\s*([^\n]+)", re.IGNORECASE)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
DRESS = re.compile(r"\\(?:left|right|!|,|;|quad|displaystyle)|\\text\{\s*\}|[\s$]")
FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}")


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
