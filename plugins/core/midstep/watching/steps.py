"""Finds the steps of one answer as its tokens come, for few looks at its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..prompts import decoded
from ..searching.boundary import Boundary

UNFINISHED = "\ufffd"  # in the text of a token that holds a part of a letter


class Reading:
    """What a tokenizer makes of token ids, and which of them may end one of these separators; shared by requests."""

    def __init__(self, tokenizer: Any, until: Sequence[str]) -> None:
        self.until = tuple(until)
        self._tokenizer = tokenizer
        # a tokenizer may drop a blank at the begin of what it decodes: then one token's own text says nothing
        self._lasts = None if any(text.endswith(" ") for text in self.until) else {text[-1] for text in self.until}
        self._known: dict[int, bool] = {}

    def may_end(self, token: int) -> bool:
        """Say whether a separator can end with this token."""
        known = self._known.get(token)
        if known is None:
            text = decoded([token], self._tokenizer)
            known = self._lasts is None or UNFINISHED in text or not self._lasts.isdisjoint(text)
            self._known[token] = known
        return known

    def boundary(self) -> Boundary:
        """Return what finds the end of a step that begins now."""
        return Boundary(self.until, lambda ids: decoded(ids, self._tokenizer), (), self.may_end)

    def text(self, ids: Sequence[int], begin: int) -> str:
        """Return the text of ids[begin:], as it stands behind those before it; without special tokens."""
        return self._plain(ids)[len(self._plain(ids[:begin])) :]

    def _plain(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Finder:
    """The steps of one answer.

    Args:
        found: is told of each step: its text, with the separator, and how many tokens the answer has there.
    """

    def __init__(self, reading: Reading, found: Callable[[str, int], None]) -> None:
        self._reading, self._found = reading, found
        self._boundary = reading.boundary()
        self._ids: list[int] = []  # of the last step that ended, and of the one under way
        self._begin = 0  # where in them the one under way begins
        self._before = 0  # tokens that the answer has before them

    def see(self, ids: Sequence[int]) -> None:
        """Take the answer's next tokens."""
        rest = list(ids)
        while rest:
            count = self._boundary.find(rest)
            if count is None:
                self._ids += rest
                return
            self._ids += rest[:count]
            self._found(self._reading.text(self._ids, self._begin), self._before + len(self._ids))
            self._before += self._begin
            self._ids = self._ids[self._begin :]
            self._begin = len(self._ids)
            self._boundary = self._reading.boundary()
            rest = rest[count:]
