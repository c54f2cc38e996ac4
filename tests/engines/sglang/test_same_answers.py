"""The requests of the shared scenario, all at once: the answers of midstep-eager, token by token."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from engines import matrix
from engines.scenario import CASES
from engines.sglang.asking import generate, offline, wrong
from engines.sglang.servers import Models, Server

# SGLang's repetition penalty leaves the prompt out, and these requests are its own: not midstep's to change.
OTHERWISE = ("plain greedy, penalised",)
MINE = [case for case in CASES if case.name not in OTHERWISE]


def test_every_case_in_one_engine_without_overlap(engine: Any, models: Models) -> None:
    """All run at the same time in sglang.Engine and get the ids, texts, reasons and reports of midstep-eager."""

    async def everything() -> list[list[Any]]:
        return await asyncio.gather(*(offline(engine, models.small, case) for case in MINE))

    answers = engine.loop.run_until_complete(everything())
    differences = wrong(MINE, answers, models.expected)
    assert not differences, "\n".join(differences)


def test_every_case_over_http_with_overlap_chunks_and_retractions(server: Server, models: Models) -> None:
    """The same through /generate, while requests are retracted and long prompts arrive in pieces."""

    async def everything() -> list[list[Any]]:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=100)
        ) as client:
            return await asyncio.gather(*(generate(client, models.small, case) for case in MINE))

    answers = asyncio.run(everything())
    assert sum(a["meta_info"]["num_retractions"] for found in answers for a in found) >= 3
    differences = wrong(MINE, answers, models.expected)
    assert not differences, "\n".join(differences)
    matrix.record("SGLang", "streaming", "works")
    matrix.record("SGLang", "preemption, chunked prefill", "works")
