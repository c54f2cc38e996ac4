"""Whatever comes, waits, goes before others, is preempted or leaves: every answer is midstep-eager's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from engines import played, scenario, schedules
from engines.kept import Answers
from engines.schedules import Arrival
from engines.vllm import driver

# Prompts come in chunks of 24 tokens; 8 blocks of 32 tokens hold the largest group, or two.
NARROW = {"max_model_len": 192, "max_num_seqs": 6, "max_num_batched_tokens": 24, "num_gpu_blocks_override": 9}
KINDS = {"async, priority": (True, "priority"), "sync, fcfs": (False, "fcfs")}


@pytest.fixture(scope="module")
def narrow(small: str) -> Iterator[Any]:
    """An engine with few seats, a small KV cache, small chunks and priorities."""
    started = driver.start(small, asynchronous=True, scheduling_policy="priority", **NARROW)
    yield started
    driver.stop(started)


@pytest.fixture(scope="module")
def answers(small: str) -> Answers:
    """What midstep-eager answers."""
    return Answers(small, schedules.CASES)


def play(engine: Any, model: str, arrivals: Sequence[Arrival]) -> tuple[dict[str, list[driver.Sample]], list[str]]:
    """Return what the client of each request had in the end, and who ended in which order.

    A tick is a step of the engine.
    """
    core, waiting, tick, ended = engine.llm_engine, list(arrivals), 0, list[str]()
    found = {one.name: [driver.Sample() for _ in range(one.case.n)] for one in arrivals}
    leaving = {one.name: one.at + one.leaves for one in arrivals if one.leaves is not None}
    while waiting or core.has_unfinished_requests():
        while waiting and waiting[0].at <= tick:
            one = waiting.pop(0)
            prompt = {"prompt_token_ids": scenario.prompt_ids(model, one.case), "type": "token"}
            core.add_request(one.name, prompt, driver.params(one.case), priority=-one.urgency)
        core.abort_request([name for name, at in leaving.items() if at == tick])
        for output in core.step():
            driver.collect(found[output.request_id], output)
            ended += [output.request_id] if output.finished else []
        tick += 1
    for _ in range(3):  # what was in flight when the last one left
        core.step()
    return found, ended


def differences(arrivals: Sequence[Arrival], found: dict[str, list[driver.Sample]], answers: Answers) -> dict[str, Any]:
    """Return what is not as midstep-eager answers: of who left, what is not the answer's beginning."""
    wrong = {}
    for one in arrivals:
        samples, expected = found[one.name], answers[one.case.name]
        if all(sample.finish_reason not in (None, "abort") for sample in samples):
            wrong |= driver.differences({one.name: samples}, {one.name: expected})
        elif one.leaves is None or not schedules.begins(one.case, [sample.ids for sample in samples], expected):
            wrong[one.name] = [sample.ids for sample in samples], [answer.ids for answer in expected]
    return wrong


def tried(engine: Any, model: str, answers: Answers, seed: int) -> dict[str, Any]:
    """Play a schedule, and return its line in the result file."""
    arrivals, began = schedules.schedule(seed), time.monotonic()
    with driver.preemptions(engine) as preempted:
        found, _ = play(engine, model, arrivals)
    wrong = differences(arrivals, found, answers)
    if driver.held(engine) != (0, 0) or engine.llm_engine.engine_core.engine_core.scheduler._groups:
        wrong["held"] = driver.held(engine)
    seconds = round(time.monotonic() - began, 1)
    return schedules.summary(seed, arrivals, wrong, preempted=len(preempted), seconds=seconds)


@pytest.mark.parametrize("seed", schedules.SHORT)
def test_any_schedule(narrow: Any, small: str, answers: Answers, seed: int) -> None:
    """Guided and plain requests come, are preempted, and leave; all answers are right, and nothing is left behind."""
    assert tried(narrow, small, answers, seed)["differences"] == {}


SLICES = played.slices(KINDS)


@pytest.mark.long
@pytest.mark.parametrize("part", SLICES)
def test_many_schedules(small: str, answers: Answers, part: str) -> None:
    """The same with more seeds, half of them without async scheduling and priorities; a file says how it was."""
    kind, seeds = SLICES[part]
    asynchronous, policy = KINDS[kind]
    engine, lines = driver.start(small, asynchronous=asynchronous, scheduling_policy=policy, **NARROW), []
    try:
        for seed in seeds:
            lines.append({"kind": kind, **tried(engine, small, answers, seed)})
    finally:
        driver.stop(engine)
        found = played.record(driver.RUNNER.lower().replace(" ", "_"), lines, settings=NARROW)
    assert [line for line in lines if played.is_wrong(line)] == []
    if len(found) == len(played.MORE):
        preempting = sum(line["preempted"] > 0 for line in found)
        assert preempting > 20, f"in {preempting} schedules somebody was preempted: make the cache smaller"


def test_who_is_urgent_is_served_before_whole_groups(narrow: Any, small: str, answers: Answers) -> None:
    """Where the KV cache runs short, groups that came earlier but matter less are preempted, with all their rows."""
    named = {case.name: case for case in schedules.CASES}
    calm = [
        Arrival(f"calm{i}", named[name], i, 0, None) for i, name in enumerate(("a longer companion", "ids, greedy"))
    ]
    urgent = Arrival("urgent", named["text, greedy"], 6, 1, None)
    with driver.preemptions(narrow) as preempted:
        found, ended = play(narrow, small, [*calm, urgent])
    assert differences([*calm, urgent], found, answers) == {}
    groups = [name.partition("#")[0].partition("-")[0] for name in preempted]
    assert preempted, "no group was preempted: the test does not test it any more"
    assert "urgent" not in groups
    assert all(groups.count(name) % 2 == 0 for name in groups), preempted
    assert all(ended.index(name) > ended.index("urgent") for name in groups)
    assert driver.held(narrow) == (0, 0)
