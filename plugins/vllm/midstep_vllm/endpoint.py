"""midstep's own routes in vLLM's server: the reports of requests, for clients that stream, and searches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request

from midstep.serving.web import Searches

from . import support
from .client import kept
from .searches import Host


class Endpoint:
    """vLLM's endpoint plugin; knows the last 4,096 reports of its API process."""

    name = "midstep"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._searches: Searches | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes to the server."""
        router = APIRouter(prefix="/midstep", dependencies=[Depends(check_key)], lifespan=self._life)
        router.add_api_route("/report/{request_id}", self.report, methods=["GET"])
        router.add_api_route("/v1/models", self.models, methods=["GET"])
        router.add_api_route("/v1/chat/completions", self.chat, methods=["POST"])
        router.add_api_route("/v1/completions", self.completions, methods=["POST"])
        app.include_router(router)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Keep the engine's client, which has the reports, and the server's keys."""
        import vllm.envs

        state.midstep_reports = kept(engine_client.output_processor)
        state.midstep_keys = [key for key in (args.api_key or [vllm.envs.VLLM_API_KEY]) if key]
        config = engine_client.vllm_config
        name = config.model_config.served_model_name
        self._searches = Searches(Host(engine_client, state), lambda: support.configuration(config), name)

    async def report(self, request_id: str, request: Request) -> dict[str, Any]:
        """Return the reports of one request by sample. Where the server asks for a key, so does this."""
        state = request.app.state
        # a completion's id stands for its first prompt; the others are `<id>-1`, `<id>-2`
        for name in (request_id, f"{request_id}-0"):
            if name in state.midstep_reports:
                reports: dict[str, Any] = state.midstep_reports[name]
                return reports
        known = "ask with the response's `id`; the last 4,096 requests that used a method are kept"
        raise HTTPException(404, f"no report of {request_id!r}: {known}")

    async def models(self, request: Request) -> Any:
        """Return what the server's own `/v1/models` does, so that an OpenAI client may live below `/midstep/v1`."""
        return await request.app.state.openai_serving_models.show_available_models()

    async def chat(self, request: Request) -> Any:
        """Search for the answer to a chat."""
        assert self._searches is not None
        return await self._searches.answer(request, chat=True)

    async def completions(self, request: Request) -> Any:
        """Search for the continuation of a text."""
        assert self._searches is not None
        return await self._searches.answer(request, chat=False)

    @asynccontextmanager
    async def _life(self, app: FastAPI) -> AsyncIterator[None]:
        yield
        if self._searches is not None:
            await self._searches.close()


async def check_key(request: Request) -> None:
    """Refuse a request without the server's key, where it has one: vLLM guards its own prefixes only."""
    keys = request.app.state.midstep_keys
    if keys:
        from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

        if not AuthenticationMiddleware(request.app, keys).verify_token(request.headers):
            raise HTTPException(401, "Unauthorized")
