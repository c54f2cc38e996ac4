"""Chats for a server's parsers: a tool call, and reasoning before an answer; a method forces the words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from engines import matrix

import midstep

CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
THOUGHT, ANSWER = "one and two", "three"
FREE = 4  # tokens of the answer that are drawn and not forced
T = TypeVar("T")


def by_kind(ask: Callable[[str], T]) -> dict[str, T]:
    """Return what `ask` returns for each kind of method, all asked at the same time."""
    with ThreadPoolExecutor(len(matrix.KINDS)) as clients:
        return dict(zip(matrix.KINDS, clients.map(ask, matrix.KINDS), strict=True))


def entry(kind: str, ids: list[int]) -> Mapping[str, str]:
    """Return midstep's entry: a method of each `kind`, beside the one that forces `ids` from the first token on."""
    return midstep.request(**{**matrix.KINDS[kind], "force": {"at": 0, "ids": ids}})


def calling(kind: str, tokenizer: Any) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return a chat whose whole answer is `CALL`, and midstep's entry of it."""
    ids = list(tokenizer(CALL).input_ids)
    body = {"messages": [{"role": "user", "content": "Call f."}], "tools": [TOOL], "tool_choice": "auto"}
    return {**body, **_plain(len(ids))}, entry(kind, ids)


def thinking(kind: str, marks: tuple[str, str], tokenizer: Any) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return a chat whose answer begins with a thought between `marks` and a word after it, and midstep's entry."""
    ids = list(tokenizer(f"{marks[0]}{THOUGHT}{marks[1]}{ANSWER}").input_ids)
    body = {"messages": [{"role": "user", "content": "Count."}]}
    return {**body, **_plain(len(ids) + FREE)}, entry(kind, ids)


def split(text: str, marks: tuple[str, str]) -> tuple[str, str]:
    """Return the thought and the answer of a whole text, which must be as `thinking` forces it."""
    assert text.startswith(f"{marks[0]}{THOUGHT}{marks[1]}{ANSWER}"), text
    thought, _, answer = text.removeprefix(marks[0]).partition(marks[1])
    return thought, answer


def _plain(tokens: int) -> dict[str, Any]:
    return {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
