"""Finds where a step ends, on token ids: a separator may straddle tokens, and calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]


class Boundary:
    """Follows one continuation until a separator is complete in its text.

    A separator of b bytes straddles at most b tokens, so that no more than these are turned into text at each token. It
    counts only where the step holds something else: what begins with a separator is not an empty step.

    Args:
        until: the separators.
        decode: the text of token ids, special tokens included.
        open_ids: the tokens of the step that is under way.
        may_end: says whether a separator can end with a token; where it cannot, and the step holds something, no text
            is made. None: any token may.
    """

    def __init__(
        self,
        until: Sequence[str],
        decode: Decode,
        open_ids: Sequence[int] = (),
        may_end: Callable[[int], bool] | None = None,
    ) -> None:
        self._until, self._decode, self._may_end = tuple(until), decode, may_end
        self._window = max(len(text.encode()) for text in self._until)
        self._ids: list[int] = []
        self._begins = 0  # the first token that holds more than blanks and separators
        self._holds = False  # there is such a token
        self.find(open_ids)

    def find(self, ids: Sequence[int]) -> int | None:
        """Add token ids; return how many of them there are up to the one that completed a separator, or None."""
        for count, token in enumerate(ids, 1):
            self._ids.append(token)
            if self._holds and self._may_end is not None and not self._may_end(token):
                continue
            begin = max(self._begins, len(self._ids) - self._window)
            text = self._decode(self._ids[begin:])
            if begin == self._begins:  # else the step holds something before this text
                text = self._content(text)
                self._holds = bool(text)
                self._begins = self._begins if text else len(self._ids)
            if any(separator in text for separator in self._until):
                return count
        return None

    def _content(self, text: str) -> str:
        """Return a step's text without the blanks and separators before it."""
        before = None
        while text != before:
            before, text = text, text.lstrip()
            for separator in self._until:
                text = text.removeprefix(separator)
        return text


def split(text: str, until: Sequence[str]) -> tuple[str, ...]:
    """Return the steps of a whole text, each with the separator that ends it; none of them is empty.

    Further separators belong to the step that they come before; at the end, with blanks, to the last one.
    """
    steps, begin = [], 0
    # of two separators that begin at one place, the first counts
    for found in re.finditer("|".join(map(re.escape, until)), text):
        if holds(text[begin : found.end()], until):
            steps.append(text[begin : found.end()])
            begin = found.end()
    rest = text[begin:]
    if holds(rest, until) or not steps:
        return (*steps, rest) if rest else tuple(steps)
    return (*steps[:-1], steps[-1] + rest)


def holds(step: str, until: Sequence[str]) -> bool:
    """Say whether a step holds more than blanks and separators."""
    for separator in until:
        step = step.replace(separator, "")
    return bool(step.strip())


def bare(step: str, until: Sequence[str]) -> str:
    """Return a step without the separators around it, as a reward wants it."""
    before = None
    while step != before:
        before = step
        for separator in until:
            step = step.removesuffix(separator).removeprefix(separator)
    return step


def bare_steps(steps: Sequence[str], until: Sequence[str]) -> list[str]:
    """Return the steps without separators; what a token holds behind one belongs to the next step's text."""
    texts, rest = [], ""
    for step in steps:
        first, *more = split(rest + step, until) or ("",)
        texts.append(bare(first, until))
        rest = "".join(more)
    return texts
