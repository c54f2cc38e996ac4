"""Whatever comes, waits, goes before others, is retracted or leaves: every answer is midstep-eager's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from engines import played, schedules
from engines.kept import Answers
from engines.schedules import Arrival
from engines.sglang.asking import check, generate, read
from engines.sglang.servers import NOTHING, PRIORITIES, Models, Server, serve_narrow

TICK = 0.04  # seconds: about a step
LEVEL = 100  # between two priorities; SGLang preempts for more than 10
KINDS = {"overlap, priority": PRIORITIES, "no overlap": ("--disable-overlap-schedule",)}


@pytest.fixture(scope="module")
def answers(models: Models) -> Answers:
    """What midstep-eager answers."""
    return models.answers(models.small, schedules.CASES)


async def one(client: httpx.AsyncClient, model: str, arrival: Arrival, priorities: bool) -> Mapping[int, Any]:
    """Return what a client had in the end, by sample: all of its answer, or what had come when it left."""
    more: dict[str, Any] = {"priority": arrival.urgency * LEVEL} if priorities else {}
    await asyncio.sleep(arrival.at * TICK)
    if arrival.leaves is None:
        return dict(enumerate(await generate(client, model, arrival.case, **more)))
    last: dict[int, Any] = {}
    aborts = arrival.case.n == 1 and arrival.leaves % 2  # the others hang up
    if aborts:
        more["rid"] = arrival.name
    reading = asyncio.create_task(read(client, model, arrival.case, last, **more))
    await asyncio.wait([reading], timeout=arrival.leaves * TICK)
    if aborts:
        await client.post("/abort_request", json={"rid": arrival.name})
        await reading
    elif not reading.done():
        reading.cancel()
        await asyncio.wait([reading])
    return last


async def play(server: Server, model: str, arrivals: Sequence[Arrival], priorities: bool) -> list[Mapping[int, Any]]:
    """Return what the client of each request had in the end."""
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=server.url, timeout=200, limits=limits) as client:
        return await asyncio.gather(*(one(client, model, arrival, priorities) for arrival in arrivals))


def _unmade(had: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a request was aborted while its grammar was made: SGLang runs it for one step, on another prompt."""
    (chunk, *others) = had
    reason = chunk.get("meta_info", {}).get("finish_reason") or {}
    return not others and len(chunk.get("output_ids", [])) == 1 and reason.get("message") == "Aborted by AbortReq."


def differences(arrivals: Sequence[Arrival], found: Sequence[Mapping[int, Any]], answers: Answers) -> dict[str, Any]:
    """Return what is not as midstep-eager answers: of who left, what is not the answer's beginning."""
    wrong: dict[str, Any] = {}
    for arrival, last in zip(arrivals, found, strict=True):
        expected, case = answers[arrival.case.name], arrival.case
        had = [last.get(i, {}) for i in range(case.n)]
        ends = [(chunk.get("meta_info", {}).get("finish_reason") or {}).get("type", "abort") for chunk in had]
        if arrival.leaves is None or "abort" not in ends:
            pairs = zip(had, expected, strict=True)
            said = [line for chunk, one in pairs for line in (check(case, chunk, one) if chunk else ["no answer"])]
        else:
            ids = [chunk.get("output_ids", []) for chunk in had]
            said = [] if _unmade(had) or schedules.begins(case, ids, expected) else [f"{ids} is no beginning"]
        wrong |= {arrival.name: said} if said else {}
    return wrong


def tried(server: Server, model: str, answers: Answers, seed: int, priorities: bool = True) -> dict[str, Any]:
    """Play a schedule, and return its line in the result file."""
    arrivals, began = schedules.schedule(seed), time.monotonic()
    found = asyncio.run(play(server, model, arrivals, priorities))
    wrong = differences(arrivals, found, answers)
    held = server.idle()
    wrong |= {} if held == NOTHING else {"held": held}
    retracted = sum(chunk["meta_info"].get("num_retractions", 0) for last in found for chunk in last.values())
    seconds = round(time.monotonic() - began, 1)
    return schedules.summary(seed, arrivals, wrong, retracted=retracted, seconds=seconds)


@pytest.mark.parametrize("seed", schedules.SHORT)
def test_any_schedule(narrow: Server, models: Models, answers: Answers, seed: int) -> None:
    """Guided and plain requests come, are retracted, and leave; all answers are right, and nothing is left behind."""
    assert tried(narrow, models.small, answers, seed)["differences"] == {}


SLICES = played.slices(KINDS)


@pytest.mark.long
@pytest.mark.parametrize("part", SLICES)
def test_many_schedules(models: Models, answers: Answers, tmp_path: Path, part: str) -> None:
    """The same with more seeds, half of them without overlap and without priorities; a file says how it was."""
    kind, seeds = SLICES[part]
    flags, lines = KINDS[kind], []
    try:
        with serve_narrow(models.small, tmp_path, *flags) as server:
            for seed in seeds:
                lines.append({"kind": kind, **tried(server, models.small, answers, seed, flags is PRIORITIES)})
    finally:
        found = played.record("sglang", lines, tick=TICK)
    assert [line for line in lines if played.is_wrong(line)] == []
    if len(found) == len(played.MORE):
        retracting = sum(line["retracted"] > 0 for line in found)
        assert retracting > 20, f"in {retracting} schedules somebody was retracted: retract more often"


def test_who_is_urgent_is_served_before_whole_groups(narrow: Server, models: Models, answers: Answers) -> None:
    """Where no row is free, a group that came earlier but matters less is preempted with all its rows."""
    named = {case.name: case for case in schedules.CASES}
    calm = [
        Arrival(f"calm{i}", named[name], 0, 0, None) for i, name in enumerate(("a longer companion", "ids, greedy"))
    ]
    urgent = Arrival("urgent", named["twice"], 15, 1, None)
    arrivals, ended = [*calm, urgent], list[str]()

    async def everything() -> list[Mapping[int, Any]]:
        async with httpx.AsyncClient(base_url=narrow.url, timeout=200) as client:

            async def noting(arrival: Arrival) -> Mapping[int, Any]:
                found = await one(client, models.small, arrival, True)
                ended.append(arrival.name)
                return found

            return await asyncio.gather(*map(noting, arrivals))

    found = asyncio.run(everything())
    assert differences(arrivals, found, answers) == {}
    assert ended[0] == "urgent"
    assert narrow.idle() == NOTHING
