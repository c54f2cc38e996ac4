"""What a search needs of an engine: continue token ids, several at once, each to be watched and ended on its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .boundary import Boundary

# "step": a separator is complete; "tokens": as many as were asked for; "end": the model ended its answer; "length": the
# engine has no room for more; "cancelled"; "fault": the engine failed.
Ended = Literal["step", "tokens", "end", "length", "cancelled", "fault"]


@dataclass(frozen=True)
class Prefix:
    """Token ids to be continued.

    Args:
        ids: of the prompt and of the answer so far.
        open: how many of its last ids are of a step that is not finished: a separator may begin among them.
    """

    ids: tuple[int, ...]
    open: int = 0


@dataclass(frozen=True)
class Piece:
    """What an engine has just added: token ids, their logprobs if asked for, and the end if it came.

    `cached` is the number of the prefix's tokens that the engine found in its prefix cache, None where it does not say;
    `sent` the number of those that were sent to it for this continuation, None for all of them.
    """

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ended: Ended | None = None
    cached: int | None = None
    sent: int | None = None


@dataclass(frozen=True)
class Continuation:
    """What was added to a prefix.

    Args:
        ids: the token ids, up to the one that completed a separator; an end token is among them.
        logprobs: the model's, one per id, where they were asked for.
        ended: why it is not longer.
        made: tokens that the engine is known to have made; beyond `ids` are those that were not needed.
        cached: tokens of the prefix from the engine's prefix cache; None: the engine does not say.
        sent: tokens of the prefix that were sent for it: 0 where another one of its request carried them.
        fault: what the engine said when it failed.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: Ended
    made: int
    cached: int | None = None
    fault: str = ""
    sent: int = 0


class Sample:
    """One continuation under way; it runs whether or not anybody waits for it.

    Args:
        pieces: what the engine adds; closed as soon as no more is needed, which must end the request in the engine, or
            wait for its end: then `pieces.unread` is the number of tokens that came behind.
        max_tokens: at most so many are kept.
        boundary: finds where the step ends; None: the engine's own word counts.
        sent: tokens of the prefix.
    """

    def __init__(
        self, pieces: AsyncIterator[Piece], max_tokens: int, boundary: Boundary | None = None, sent: int = 0
    ) -> None:
        self._pieces, self._max_tokens, self._boundary = pieces, max_tokens, boundary
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._made, self._sent = 0, sent
        self._ended: Ended | None = None
        self._cached: int | None = None
        self._fault = ""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._task = asyncio.create_task(self._read())
        self._task.add_done_callback(self._close)

    async def reach(self, tokens: int) -> Continuation:
        """Wait for the first `tokens` tokens, or for the end if that comes before; the rest goes on."""
        while self._ended is None and len(self._ids) < tokens:
            moved = asyncio.get_running_loop().create_future()
            self._waiting.append((tokens, moved))
            await moved
        whole = self._ended is not None and len(self._ids) <= tokens
        ended = self._ended if whole and self._ended is not None else "tokens"
        ids, logprobs = tuple(self._ids[:tokens]), tuple(self._logprobs[:tokens])
        return Continuation(ids, logprobs, ended, self._made, self._cached, self._fault, self._sent)

    async def end(self) -> Continuation:
        """Wait for the end; a fault of the engine is told, not raised."""
        return await self.reach(self._max_tokens + 1)

    def cancel(self) -> None:
        """End it now; what it has is its result."""
        self._task.cancel()

    async def gone(self) -> None:
        """Wait until nothing of it runs any more; whoever waits may be cancelled, and then is."""
        await asyncio.wait([self._task])

    async def _read(self) -> None:
        try:
            async for piece in self._pieces:
                if self._take(piece):
                    return
        finally:
            close = getattr(self._pieces, "aclose", None)
            if close is not None:
                await close()
            self._made += getattr(self._pieces, "unread", 0)

    def _take(self, piece: Piece) -> bool:
        """Keep what is needed of a piece; say whether that was all."""
        before = len(self._ids)
        self._made += len(piece.ids)
        self._cached = piece.cached if piece.cached is not None else self._cached
        self._sent = piece.sent if piece.sent is not None else self._sent
        self._ids += piece.ids
        self._logprobs += piece.logprobs
        ended = piece.ended
        if ended in (None, "length") and len(self._ids) >= self._max_tokens:
            ended = "tokens"
        cut = self._boundary.find(piece.ids) if self._boundary is not None else None
        if cut is not None and before + cut <= self._max_tokens:
            # the end token may be what completes a separator's text; then the answer has ended
            ended = ended if ended == "end" and cut == len(piece.ids) else "step"
            self._ids, self._logprobs = self._ids[: before + cut], self._logprobs[: before + cut]
        elif len(self._ids) > self._max_tokens:
            ended = "tokens"
            self._ids, self._logprobs = self._ids[: self._max_tokens], self._logprobs[: self._max_tokens]
        self._ended = ended
        self._wake()
        return ended is not None

    def _close(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._ended is None:
            self._ended = "cancelled" if task.cancelled() else "fault"
            said = f"{type(error).__name__}: {error}" if error is not None else "the engine ended without a reason"
            self._fault = "" if task.cancelled() else said
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for tokens, moved in waiting:
            if self._ended is None and len(self._ids) < tokens:
                self._waiting.append((tokens, moved))
            elif not moved.done():
                moved.set_result(None)


class Engine(Protocol):
    """What a search needs of an engine. `Streaming` makes one of anything that streams tokens."""

    def extend(
        self,
        prefixes: Sequence[Prefix],
        *,
        seeds: Sequence[int],
        max_tokens: Sequence[int],
        until: Sequence[str] = (),
        sampling: Mapping[str, Any] | None = None,
        methods: Mapping[str, Any] | None = None,
        logprobs: bool = False,
        share: bool = False,
    ) -> list[Sample]:
        """Begin to continue each prefix, all at once: to a text of `until`, to its `max_tokens`, or to the end.

        Args:
            prefixes: token ids in; the samples give token ids out.
            seeds: one per prefix, 0 <= seed < 2^31; equal prefixes with equal seeds have equal continuations.
            max_tokens: one per prefix; never exceeded by a token.
            until: separators of steps, which may begin in a prefix's open step and straddle tokens. The token that
                completes one is the step's last, with all of its text.
            sampling: temperature, top_p and the like, by OpenAI's names; over the engine's own.
            methods: midstep methods with their parameters, for this call.
            logprobs: whether to return the model's logprobs.
            share: none of them will be cancelled alone, so that copies of one prefix with consecutive seeds may be one
                request, with others that are asked for in the same tick. One that is cancelled all the same may run on
                to its end.
        """

    async def encode(self, prompt: str | Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Return the token ids of a text, or of a chat's messages."""

    async def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
