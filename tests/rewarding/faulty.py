"""A server of process rewards over real HTTP, without a model: it answers like vLLM and SGLang, or fails as it is told.

What it scores a step with is a function of the text up to it, so that a score read in a wrong place is a wrong score.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

NAN = float("nan")


def value(read: Any) -> float:
    """Return the score of what was read: 1/16 to 15/16."""
    text = read if isinstance(read, str) else json.dumps(list(read))
    return (1 + hashlib.sha256(text.encode()).digest()[0] % 15) / 16


@dataclass
class Faulty:
    """The server.

    Args:
        tag: the token behind a step, as it is spelled.
        faults: what becomes of the first calls, one after the other: "ok", "500", "hang", "cut", "short", "fewer",
            "nan", "above", "raw", "no json"; the last one is that of all later calls.
    """

    tag: str = "<extra_0>"
    faults: Sequence[str] = ("ok",)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    url: str = ""
    runner: Any = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m"}]})
        body = await request.json()
        fault = self.faults[min(len(self.calls), len(self.faults) - 1)]
        self.calls.append((request.path, body))
        if fault == "500":
            return web.json_response({"error": {"message": "CUDA out of memory"}}, status=500)
        if fault == "hang":
            await asyncio.sleep(60)
        if fault == "no json":
            return web.Response(text="<html>")
        if fault == "cut":
            assert request.transport is not None
            request.transport.close()
        rows = [self.rows(request.path, item, fault) for item in body.get("input") or body.get("items") or []]
        rows = rows[:-1] if fault == "fewer" else rows
        if request.path == "/v1/score":
            return web.json_response({"scores": rows})
        if request.path == "/generative_scoring":
            data = [{"index": i, "score": row[0]} for i, row in enumerate(rows)]
        else:
            named = "embedding" if request.path == "/v1/embeddings" else "data"
            data = [{"index": i, named: row} for i, row in enumerate(rows)]
        return web.json_response({"data": data[::-1]})  # in any order: each has its index

    def rows(self, path: str, item: Any, fault: str) -> Any:
        """Return what is said of one item: rows at its tags, one row behind its ids, or a value at each of them."""

        def row(read: Any) -> list[float]:
            p = {"nan": NAN, "above": 1.5}.get(fault, value(read))
            return [3 * p, -p] if fault == "raw" else [1 - p, p]

        if path == "/v1/embeddings":
            return [value(item[: i + 1]) for i in range(len(item) - (fault == "short"))]
        if not isinstance(item, str):
            return row(item)[::-1]
        pieces = item.split(self.tag)
        found = [row(self.tag.join(pieces[: i + 1])) for i in range(len(pieces) - 1)]
        return found[:-1] if fault == "short" else found

    async def die(self) -> None:
        """End: connections are closed, and new ones refused."""
        await self.runner.cleanup()


@asynccontextmanager
async def serving(tag: str = "<extra_0>", faults: Sequence[str] = ("ok",)) -> AsyncIterator[Faulty]:
    """Run the server."""
    server = Faulty(tag, faults)
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", server.answer)
    server.runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await server.runner.setup()
    site = web.TCPSite(server.runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{server.runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await server.die()
