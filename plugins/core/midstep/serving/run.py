"""One search of a server, from its first call of the engine to its last chunk."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import metrics
from ..searching import Engine, Prefix, Result, Sample, Spent
from ..searching.run import search
from .answer import Shape, chunks, whole
from .body import Asked
from .faults import fault
from .progress import Progress
from .service import Plan, Service

PACE = 0.05  # seconds between two chunks of progress
ALIVE = 10.0  # seconds after which a stream says that it is alive: what stands between may cut one that says nothing


@dataclass(frozen=True)
class Seat:
    """What a server has made of a request.

    Args:
        engine: for this request: it may wear the request's adapter.
        prompt: token ids.
        question: the prompt as the reward gets it.
    """

    engine: Engine
    prompt: Sequence[int]
    question: str


class Run:
    """A search under way; whoever begins one cancels it when its client is gone.

    Args:
        service: of the server.
        asked: the request.
        plan: what `service.admit` made of it.
        seat: where it runs.
        shape: of the answer.
    """

    def __init__(self, service: Service, asked: Asked, plan: Plan, seat: Seat, shape: Shape) -> None:
        self._service, self._asked, self._plan, self._seat, self._shape = service, asked, plan, seat, shape
        self._progress, self._spent, self._pruned = Progress(), Spent(), set[str]()
        self._begun = asyncio.Event()
        self._task = asyncio.create_task(self._search())
        service.running.add(self._task)
        self._task.add_done_callback(service.running.discard)
        # looked at, also where nobody waits any more
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def begun(self) -> None:
        """Wait for the first call of the engine: what is refused is refused before that.

        Raises:
            ValueError: the search is refused.
        """
        await _first(self._task, self._begun.wait())
        if self._task.done():
            self._task.result()

    async def answer(self) -> dict[str, Any]:
        """Return the answer in one piece."""
        return whole(self._shape, await asyncio.shield(self._task), self._asked)

    async def events(self) -> AsyncIterator[str]:
        """Yield server-sent events: progress, the answer, and the end; an error is the last event but that."""
        yield _event(self._shape.chunk([self._shape.delta(0, "", first=True)]))
        while not self._task.done():
            await _first(self._task, self._progress.changed(), asyncio.sleep(ALIVE))
            told = self._progress.take()
            if told:
                yield _event(self._shape.chunk([self._shape.delta(0, None)], midstep=told))
                await _first(self._task, asyncio.sleep(PACE))
            elif not self._task.done():
                yield ": searching\n\n"
        told = self._progress.take()
        if told:
            yield _event(self._shape.chunk([self._shape.delta(0, None)], midstep=told))
        try:
            result = self._task.result()
        except (Exception, asyncio.CancelledError) as error:
            yield _event(fault(error))
        else:
            for chunk in chunks(self._shape, result, self._asked):
                yield _event(chunk)
        yield "data: [DONE]\n\n"

    def cancel(self) -> None:
        """End it, with everything that it has in the engine and at its reward."""
        self._task.cancel()

    async def _search(self) -> Result:
        plan, began, outcome = self._plan, time.monotonic(), "failed"
        try:
            result = await search(
                _Watched(self._seat.engine, self._begun),
                self._seat.prompt,
                reward=plan.reward,
                seed=plan.seed,
                budget=plan.budget,
                separator=plan.separator,
                sampling=plan.sampling,
                methods=plan.methods,
                selector=plan.selector,
                patience=plan.patience,
                question=self._seat.question,
                limits=self._service.configuration.limits,
                progress=self._note,
                spent=self._spent,
                **plan.plan,
            )
            outcome = "answered"
            return result
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            if self._begun.is_set():
                seconds = time.monotonic() - began
                metrics.count_search(plan.search, outcome, seconds, self._spent, len(self._pruned), self._service.model)

    def _note(self, name: str, node: Mapping[str, Any]) -> None:
        if node["fate"] == "pruned":
            self._pruned.add(name)
        self._progress.note(name, node)


class _Watched:
    """An engine that tells of its first call."""

    def __init__(self, engine: Engine, begun: asyncio.Event) -> None:
        self._engine, self._begun = engine, begun

    def extend(self, prefixes: Sequence[Prefix], **how: Any) -> list[Sample]:
        self._begun.set()
        return self._engine.extend(prefixes, **how)

    async def encode(self, prompt: str | Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        return await self._engine.encode(prompt)

    async def decode(self, ids: Sequence[int]) -> str:
        return await self._engine.decode(ids)


async def _first(task: asyncio.Task[Any], *others: Any) -> None:
    """Wait for a task, which is left alone, or for one of the others, which are ended."""
    waiting = [asyncio.ensure_future(other) for other in others]
    try:
        await asyncio.wait([task, *waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for other in waiting:
            other.cancel()


def _event(chunk: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"
