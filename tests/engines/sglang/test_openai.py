"""The OpenAI routes: the same answers, and the report at each choice, whole and in streams."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from engines import scenario
from engines.scenario import CASES, Case
from engines.sglang.servers import Models, Server

import midstep

MINE = [case for case in CASES if case.methods is not None]


async def _ask(client: httpx.AsyncClient, case: Case) -> list[dict[str, Any]]:
    """Return each choice's text, finish reason, matched stop, and report."""
    body = scenario.http_body(case, "sglang", "small")
    if "min_tokens" in case.sampling:
        body["min_tokens"] = body.pop("min_tokens")
    path = "/v1/chat/completions" if case.chat else "/v1/completions"
    if not case.stream:
        response = await client.post(path, json=body)
        assert response.status_code == 200, f"{case.name}: {response.text}"
        answer = response.json()
        return [{**_facts(choice), "report": midstep.report(answer, i)} for i, choice in enumerate(answer["choices"])]
    found: dict[int, dict[str, Any]] = {}
    async with client.stream("POST", path, json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            for choice in chunk["choices"]:
                have = found.setdefault(choice["index"], {"text": "", "finish": None, "report": None})
                part = _facts(choice)
                have["text"] += part["text"] or ""
                if part["finish"] is not None:
                    have |= {"finish": part["finish"], "reason": part["reason"], "report": midstep.report(chunk)}
    return [found[i] for i in sorted(found)]


def _facts(choice: dict[str, Any]) -> dict[str, Any]:
    text = choice["text"] if "text" in choice else (choice.get("message") or choice["delta"]).get("content")
    reason = choice.get("matched_stop")
    return {
        "text": text,
        "finish": choice["finish_reason"],
        "reason": reason if isinstance(reason, str) else None,
    }


def test_every_case_through_completions_and_chat(server: Server, models: Models) -> None:
    """Texts, finish reasons and reports are those of midstep-eager."""

    async def everything() -> list[list[dict[str, Any]]]:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=100)
        ) as client:
            return await asyncio.gather(*(_ask(client, case) for case in MINE))

    wrong = []
    for case, answers in zip(MINE, asyncio.run(everything()), strict=True):
        for i, (have, expected) in enumerate(zip(answers, models.expected[case.name], strict=True)):
            report = have["report"]
            facts = {
                "text": (have["text"], expected.text),
                "finish": (have["finish"], expected.finish_reason),
                "reason": (have["reason"], expected.stop_reason),
                "sample": (report and report.sample, i),
                "changed": (report and {n: m.changed for n, m in report.methods.items()}, dict(expected.changed)),
            }
            wrong += [f"{case.name}: {k} is {x!r}, not {y!r}" for k, (x, y) in facts.items() if x != y]
    assert not wrong, "\n".join(wrong)
