"""What became of each part of a search's tree: its trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .path import Path


class Tree:
    """The paths of a search by their addresses, each with the step that it adds to the one before it."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self._lengths: dict[str, int] = {}  # of the texts
        self._addresses: dict[tuple[int, ...], str] = {}

    def note(self, path: Path, fate: str, why: str) -> tuple[str, dict[str, Any]]:
        """Write down a path as it is now; return its address and what is known of it.

        A node: "text" and "step", of the step alone, its text and its tokens; "tokens" of the answer up to it; the
        "scores" of all steps, and the "value" that the search goes by; its "fate", and "why".
        """
        address = ".".join(map(str, path.name))
        before = ".".join(map(str, path.name[:-1]))
        known = self.nodes.setdefault(address, {})
        text, tokens = path.text, len(path.ids)
        known |= {"text": text[self._lengths.get(before, 0) :], "tokens": tokens}
        known |= {"step": tokens - self.nodes.get(before, {}).get("tokens", 0)}
        known |= {"scores": list(path.scores), "value": path.value, "fate": fate, "why": why}
        self._lengths[address] = len(text)
        self._addresses[path.ids] = address
        return address, known

    def sorted(self) -> dict[str, dict[str, Any]]:
        """Return the nodes in the order of their addresses."""
        return dict(sorted(self.nodes.items(), key=lambda item: [int(part) for part in item[0].split(".") if part]))

    def find(self, ids: Sequence[int]) -> str | None:
        """Return the address at which an answer ends; of several with the same token ids, the last one noted."""
        return self._addresses.get(tuple(ids))
