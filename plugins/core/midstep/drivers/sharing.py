"""Copies of one prefix in one request: asked for in one tick and not cancelled one by one, they are sent once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from ..searching import Call, Piece

# Continues one call's prefix with its seed, the next one ...: yields the choice's number with what it adds.
Asking = Callable[[Call, int], AsyncGenerator[tuple[int, Piece]]]


class Choice:
    """One continuation of a request that may have several; it is asked for when somebody begins to read it.

    Args:
        call: what it is asked for with.
        join: asks for it.
    """

    def __init__(self, call: Call, join: Callable[[Choice], None]) -> None:
        self.call, self.unread, self.ended, self.left = call, 0, asyncio.Event(), False
        self._pieces: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._join: Callable[[Choice], None] | None = join
        self._close: Callable[[], None] = lambda: None

    def __aiter__(self) -> Choice:
        """Return itself."""
        return self

    async def __anext__(self) -> Piece:
        """Return what was added."""
        if self._join is not None:
            self._join(self)
            self._join = None
        piece = await self._pieces.get()
        if isinstance(piece, Piece):
            return piece
        if piece is None:
            raise StopAsyncIteration
        raise piece

    async def aclose(self) -> None:
        """Wait until it has ended in the engine: with the others, it is ended at once, else it runs on to its end."""
        while not self._pieces.empty():
            piece = self._pieces.get_nowait()
            self.unread += len(piece.ids) if isinstance(piece, Piece) else 0
        self.left = True
        self._close()
        if self._join is None:
            await self.ended.wait()

    def put(self, piece: Piece) -> None:
        """Hand over what was added; once it is closed, its tokens are counted in `unread`."""
        if self.left:
            self.unread += len(piece.ids)
        else:
            self._pieces.put_nowait(piece)
        if piece.ended is not None:
            self.ended.set()

    def finish(self, error: BaseException | None) -> None:
        """End it, whatever was to come."""
        self._pieces.put_nowait(error)
        self.ended.set()

    def belongs(self, close: Callable[[], None]) -> None:
        """Call this when it is closed."""
        self._close = close


class Sharing:
    """Makes one request of the calls of one tick that differ in nothing but consecutive seeds.

    Args:
        ask: see `Asking`.
        most: continuations of one request.
    """

    def __init__(self, ask: Asking, most: int) -> None:
        self._ask, self._most = ask, most
        self._waiting: dict[str, list[Choice]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def choice(self, call: Call) -> Choice:
        """Return the continuation of a call; it begins when the tick is over, with those of its prefix."""
        return Choice(call, self._joined)

    def _joined(self, choice: Choice) -> None:
        call = choice.call
        key = json.dumps([call.ids, call.max_tokens, call.until, {**call.sampling}, {**call.methods}, call.logprobs])
        if not call.share:
            self._begin([choice])
        elif key in self._waiting:
            self._waiting[key].append(choice)
        else:
            self._waiting[key] = [choice]
            asyncio.get_running_loop().call_soon(self._over, key)

    def _over(self, key: str) -> None:
        asked = self._waiting.pop(key)
        for choice in asked:
            if choice.left:
                choice.finish(None)
        choices = sorted((one for one in asked if not one.left), key=lambda one: one.call.seed)
        for run in runs([choice.call.seed for choice in choices], self._most):
            self._begin(choices[run.start : run.stop])

    def _begin(self, choices: list[Choice]) -> None:
        def close() -> None:
            if all(choice.left or choice.ended.is_set() for choice in choices):
                task.cancel()

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            for choice in choices:
                choice.finish(error)

        task = asyncio.get_running_loop().create_task(self._read(choices))
        self._tasks.add(task)
        task.add_done_callback(over)
        for choice in choices:
            choice.belongs(close)

    async def _read(self, choices: list[Choice]) -> None:
        for other in choices[1:]:
            other.put(Piece(sent=0))
        async with aclosing(self._ask(choices[0].call, len(choices))) as pieces:
            async for number, piece in pieces:
                choices[number].put(piece)


def runs(seeds: Sequence[int], most: int) -> list[range]:
    """Return the places of consecutive seeds, in ascending order, at most so many together."""
    found: list[range] = []
    for place, seed in enumerate(seeds):
        last: Any = found[-1] if found else None
        if last is not None and len(last) < most and seed == seeds[place - 1] + 1:
            found[-1] = range(last.start, place + 1)
        else:
            found.append(range(place, place + 1))
    return found
