"""The routes' part for Starlette, which the servers of both engines are made of; only they import this module."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..configuration import Configuration
from .answer import Shape
from .body import Asked, ChatBody, CompletionBody, read
from .faults import HEADERS, body, fault
from .run import Run, Seat
from .service import Plan, Service

logger = logging.getLogger("midstep")

T = TypeVar("T")


class Host(Protocol):
    """What an engine's server adds."""

    def named(self, model: str | None) -> str:
        """Return the name under which the answer goes.

        Raises:
            LookupError: the server has no such model.
        """

    async def seat(self, asked: Asked, plan: Plan) -> Seat:
        """Return the request's engine and its prompt, rendered as the server's own routes do it.

        Raises:
            ValueError: the engine would refuse each call.
        """

    def failure(self, error: Exception) -> Mapping[str, Any] | None:
        """Return one of the engine's own errors as a body, or None where it is none of them."""


class Searches:
    """The searches of one API process.

    Args:
        host: the engine's server.
        configuration: reads the server's own.
        model: the name under which the model is served, for the metrics.
    """

    def __init__(self, host: Host, configuration: Callable[[], Configuration], model: str) -> None:
        self._host, self._service, self._reason = host, None, ""
        try:
            self._service = Service(configuration(), model)
        except ValueError as error:
            self._reason = f"the server's configuration cannot be used: {error}"

    async def answer(self, request: Request, *, chat: bool) -> Response:
        """Search, and answer as OpenAI would; a client that goes away ends it."""
        run: Run | None = None
        try:
            if self._service is None:
                raise ValueError(self._reason)
            limits = self._service.configuration.limits
            asked = read(await request.body(), ChatBody if chat else CompletionBody, limits)
            name = request.headers.get("X-Request-Id") or uuid4().hex
            shape = Shape(chat, f"{'chatcmpl' if chat else 'cmpl'}-{name}", self._host.named(asked.model))
            plan = self._service.admit(asked)
            run = Run(self._service, asked, plan, await self._host.seat(asked, plan), shape)
            if not asked.stream:
                return JSONResponse(await while_there(request.receive, run.answer()))
            await while_there(request.receive, run.begun())
            streamed, run = _Streamed(run), None
            return streamed
        except GoneError:
            # nobody reads it
            return Response(status_code=499)
        except Exception as error:
            return self._failed(error)
        finally:
            if run is not None:
                run.cancel()

    async def close(self) -> None:
        """End what runs, and let go of the rewards."""
        if self._service is not None:
            await self._service.close()

    def _failed(self, error: Exception) -> Response:
        found = self._host.failure(error) or fault(error)
        if isinstance(error, LookupError) and not isinstance(error, KeyError | IndexError):
            found = body(str(error), "NotFoundError", 404)
        status = int(found["error"]["code"])
        if status != 500:
            return JSONResponse(found, status)
        # what was not meant to happen has its traceback; a reward that is gone has none to tell
        strange = None if isinstance(error, RuntimeError) else error
        logger.warning("midstep: a search failed: %s", found["error"]["message"], exc_info=strange)
        return JSONResponse(found, status, headers=HEADERS)


class GoneError(Exception):
    """The client went away."""


class _Streamed(StreamingResponse):  # type: ignore[misc]
    """A stream that ends its search however it ends."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._run = run

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.cancel()


async def while_there(receive: Callable[[], Awaitable[Mapping[str, Any]]], work: Coroutine[Any, Any, T]) -> T:
    """Return what comes of it; where the client goes away before, it is cancelled.

    Raises:
        GoneError: the client went away.
    """
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise GoneError
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


async def _gone(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
