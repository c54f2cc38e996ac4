"""Asks SGLang the tests' cases, and compares its answers with those of midstep-eager."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from engines import scenario
from engines.scenario import Case, Expected

import midstep


async def offline(engine: Any, model: str, case: Case) -> list[Any]:
    """Return sglang.Engine's answers to a case."""
    ids = scenario.prompt_ids(model, case)
    params = scenario.sglang_params(case)
    if not case.stream:
        answers = await engine.async_generate(input_ids=ids, sampling_params=params)
        return answers if isinstance(answers, list) else [answers]
    last: dict[int, Any] = {}
    async for chunk in await engine.async_generate(input_ids=ids, sampling_params=params, stream=True):
        last[chunk.get("index", 0)] = chunk
    return [last[i] for i in sorted(last)]


def check(case: Case, answer: Mapping[str, Any], expected: Expected) -> list[str]:
    """Return what of an answer differs from midstep-eager's."""
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


async def generate(client: httpx.AsyncClient, model: str, case: Case, **more: Any) -> list[Any]:
    """Return a server's answers to a case through /generate; `more` of the body is the test's."""
    if case.stream:
        last: dict[int, Any] = {}
        await read(client, model, case, last, **more)
        return [last[i] for i in sorted(last)]
    answers = (await client.post("/generate", json=body(model, case, **more))).raise_for_status().json()
    return answers if isinstance(answers, list) else [answers]


def body(model: str, case: Case, **more: Any) -> dict[str, Any]:
    """Return the body of a request to /generate."""
    return {"input_ids": scenario.prompt_ids(model, case), "sampling_params": scenario.sglang_params(case), **more}


async def read(client: httpx.AsyncClient, model: str, case: Case, last: dict[int, Any], **more: Any) -> None:
    """Stream a case through /generate; `last` holds, by sample, the last chunk that has come."""
    async with client.stream("POST", "/generate", json=body(model, case, stream=True, **more)) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                if "meta_info" in chunk:  # or it says why there is no answer
                    last[chunk.get("index", 0)] = chunk


def wrong(cases: Sequence[Case], answers: Sequence[Sequence[Any]], expected: Mapping[str, list[Expected]]) -> list[str]:
    """Return what differs from midstep-eager, over all cases and samples."""
    return [
        line
        for case, found in zip(cases, answers, strict=True)
        for answer, one in zip(found, expected[case.name], strict=True)
        for line in check(case, answer, one)
    ]
