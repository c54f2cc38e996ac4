"""The requests of the shared scenario, all at once: the answers of midstep-eager, token by token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
from engines import matrix, scenario
from engines.scenario import CASES, Case, Expected
from engines.sglang.servers import Models, Server

import midstep

# SGLang's repetition penalty leaves the prompt out, and these requests are its own: not midstep's to change.
OTHERWISE = ("plain greedy, penalised",)
MINE = [case for case in CASES if case.name not in OTHERWISE]


async def _offline(engine: Any, model: str, case: Case) -> list[Any]:
    ids = scenario.prompt_ids(model, case)
    params = scenario.sglang_params(case)
    if not case.stream:
        answers = await engine.async_generate(input_ids=ids, sampling_params=params)
        return answers if isinstance(answers, list) else [answers]
    last: dict[int, Any] = {}
    async for chunk in await engine.async_generate(input_ids=ids, sampling_params=params, stream=True):
        last[chunk.get("index", 0)] = chunk
    return [last[i] for i in sorted(last)]


def _check(case: Case, answer: Mapping[str, Any], expected: Expected) -> list[str]:
    meta = answer["meta_info"]
    found = midstep.report(answer)
    matched = meta["finish_reason"].get("matched")
    facts = {
        "ids": (tuple(answer["output_ids"]), expected.ids),
        "text": (answer["text"], expected.text),
        "finish": (meta["finish_reason"]["type"], expected.finish_reason),
        "reason": (matched if isinstance(matched, str) else None, expected.stop_reason),
        "changed": ({n: m.changed for n, m in found.methods.items()} if found else {}, dict(expected.changed)),
        "stop": (found.stop.position if found and found.stop else None, (expected.stop or {}).get("position")),
    }
    return [f"{case.name}: {what} is {have}, not {want}" for what, (have, want) in facts.items() if have != want]


def _wrong(answers: list[list[Any]], models: Models) -> list[str]:
    """Return what differs from midstep-eager, over all cases and samples."""
    return [
        line
        for case, found in zip(MINE, answers, strict=True)
        for answer, expected in zip(found, models.expected[case.name], strict=True)
        for line in _check(case, answer, expected)
    ]


def test_every_case_in_one_engine_without_overlap(engine: Any, models: Models) -> None:
    """All run at the same time in sglang.Engine and get the ids, texts, reasons and reports of midstep-eager."""

    async def everything() -> list[list[Any]]:
        return await asyncio.gather(*(_offline(engine, models.small, case) for case in MINE))

    answers = engine.loop.run_until_complete(everything())
    wrong = _wrong(answers, models)
    assert not wrong, "\n".join(wrong)


async def _generate(client: httpx.AsyncClient, model: str, case: Case) -> list[Any]:
    body = {"input_ids": scenario.prompt_ids(model, case), "sampling_params": scenario.sglang_params(case)}
    if not case.stream:
        answers = (await client.post("/generate", json=body)).raise_for_status().json()
        return answers if isinstance(answers, list) else [answers]
    last: dict[int, Any] = {}
    async with client.stream("POST", "/generate", json={**body, "stream": True}) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                last[chunk.get("index", 0)] = chunk
    return [last[i] for i in sorted(last)]


def test_every_case_over_http_with_overlap_chunks_and_retractions(server: Server, models: Models) -> None:
    """The same through /generate, while requests are retracted and long prompts arrive in pieces."""

    async def everything() -> list[list[Any]]:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=100)
        ) as client:
            return await asyncio.gather(*(_generate(client, models.small, case) for case in MINE))

    answers = asyncio.run(everything())
    assert sum(a["meta_info"]["num_retractions"] for found in answers for a in found) >= 3
    wrong = _wrong(answers, models)
    assert not wrong, "\n".join(wrong)
    matrix.record("SGLang", "streaming", "works")
    matrix.record("SGLang", "preemption, chunked prefill", "works")
