"""What a search tells while it runs, to a client who may be slow: changes are put together, never queued."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

MOST = 256  # nodes that wait to be told


class Progress:
    """The parts of a tree that changed and are not told yet; only the newest word on each is kept."""

    def __init__(self) -> None:
        self._waiting: dict[str, Mapping[str, Any]] = {}
        self._dropped = 0
        self._changed = asyncio.Event()

    def note(self, name: str, node: Mapping[str, Any]) -> None:
        """Keep what became of a node; beyond `MOST` of them, the oldest is dropped."""
        self._waiting.pop(name, None)
        self._waiting[name] = node
        if len(self._waiting) > MOST:
            del self._waiting[next(iter(self._waiting))]
            self._dropped += 1
        self._changed.set()

    async def changed(self) -> None:
        """Wait until there is something to tell."""
        await self._changed.wait()

    def take(self) -> dict[str, Any]:
        """Return what is to be told, once: the nodes by address, and how many were dropped."""
        nodes, dropped = {name: dict(node) for name, node in self._waiting.items()}, self._dropped
        self._waiting, self._dropped = {}, 0
        self._changed.clear()
        return {"nodes": nodes, "dropped": dropped} if nodes else {}
