"""`GET /midstep/report/<request id>`: the reports of a request by sample, for clients that stream."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request

from .client import kept


class Endpoint:
    """vLLM's endpoint plugin; knows the last 4,096 reports of its API process."""

    name = "midstep"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the route to the server."""
        router = APIRouter()
        router.add_api_route("/midstep/report/{request_id}", self.report, methods=["GET"])
        app.include_router(router)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Keep the engine's client, which has the reports, and the server's keys."""
        import vllm.envs

        state.midstep_reports = kept(engine_client.output_processor)
        state.midstep_keys = [key for key in (args.api_key or [vllm.envs.VLLM_API_KEY]) if key]

    async def report(self, request_id: str, request: Request) -> dict[str, Any]:
        """Return the reports of one request by sample. Where the server asks for a key, so does this."""
        state = request.app.state
        if state.midstep_keys:
            # vLLM guards its own prefixes only
            from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

            if not AuthenticationMiddleware(request.app, state.midstep_keys).verify_token(request.headers):
                raise HTTPException(401, "Unauthorized")
        # a completion's id stands for its first prompt; the others are `<id>-1`, `<id>-2`
        for name in (request_id, f"{request_id}-0"):
            if name in state.midstep_reports:
                reports: dict[str, Any] = state.midstep_reports[name]
                return reports
        known = "ask with the response's `id`; the last 4,096 requests that used a method are kept"
        raise HTTPException(404, f"no report of {request_id!r}: {known}")
