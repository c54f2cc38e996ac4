"""Guided requests: one request for the user, its companions in the engine, and lockstep whatever the scheduler does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from engines import guided, scenario
from engines.guided import CASES, FEW, MANY
from engines.scenario import Case, Expected
from engines.vllm import driver
from engines.vllm.crowd import prompt
from engines.vllm.driver import held

import midstep

REFUSED = "the prompt's last token"  # a companion of one token
SHORT = (
    "ids, greedy",
    "text, greedy",
    "ids, sampled",
    "a longer companion",
    "two companions",
    "a penalty",
    "forced ids",
    "a plain neighbour",
)


def crowd(model: str, names: Collection[str] = ()) -> list[tuple[str, list[int], Any]]:
    """Return the guided cases, or some of them, for the driver."""
    chosen = [case for case in CASES if case.name != REFUSED and (not names or case.name in names)]
    return [(case.name, scenario.prompt_ids(model, case), driver.params(case)) for case in chosen]


def named(name: str) -> Case:
    """Return one of the cases."""
    return next(case for case in CASES if case.name == name)


def params(case: Case, **more: Any) -> Any:
    """Return a case as SamplingParams, with `extra_args` or others of its own."""
    own = driver.params(case)
    for name, value in more.items():
        setattr(own, name, value)
    return own


@pytest.fixture(scope="session")
def answers(small: str) -> dict[str, list[Expected]]:
    """What midstep-eager answers."""
    return scenario.expected(small, CASES)


def test_one_request_is_guided_and_its_client_sees_one_answer(engine: Any, small: str, answers: Any) -> None:
    """Answer and report of one guided request; nothing is left behind."""
    found = driver.run(engine, crowd(small, ("a longer companion",)))
    assert driver.differences(found, answers) == {}
    report = found["a longer companion"][0].report
    assert report is not None
    assert report.tokens.companion == len(MANY) + 40
    assert report.methods["cfg"].changed > 0
    assert held(engine) == (0, 0)


def test_a_scale_of_one_is_unguided(engine: Any, small: str, answers: Any) -> None:
    """Scale 1: exactly the tokens that the request has without guidance."""
    found = driver.run(engine, crowd(small, ("scale 1", "unguided")))
    assert found["scale 1"][0].ids == found["unguided"][0].ids == list(answers["unguided"][0].ids)


def test_a_crowd_of_guided_requests(engine: Any, small: str, answers: Any) -> None:
    """All cases at once, twice the rows that there are seats for: all as midstep-eager answers each alone."""
    found = driver.run(engine, crowd(small))
    assert driver.differences(found, answers) == {}
    assert held(engine) == (0, 0)
    both = found["twice"]
    assert [one.report and one.report.tokens.companion for one in both] == [len(FEW) + 24] * 2


def test_all_methods_in_one_batch(engine: Any, small: str) -> None:
    """Sixteen rows in one step: guided ones among samplers, stops and forced tokens, all methods of ours."""
    cases, most = guided.mixed(), list[int]()
    assert guided.unmixed() == set(), "add these to guided.MIXED"
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    requests = [(case.name, scenario.prompt_ids(small, case), driver.params(case)) for case in cases]
    found = driver.run(engine, requests, lambda step: most.append(len(scheduler.running)))
    assert driver.differences(found, scenario.expected(small, cases)) == {}
    assert max(most) == guided.MIXED_ROWS


def test_guided_requests_join_and_leave(engine: Any, small: str, answers: Any) -> None:
    """Requests that join a running batch, and neighbours that are aborted, change nothing."""
    core, waiting = engine.llm_engine, crowd(small, SHORT)
    long = replace(CASES[0], max_tokens=100)
    goners = [(f"goner {i}", prompt(9 + i, 70 + i), driver.params(long)) for i in range(3)]

    def join(step: int) -> None:
        if step % 3 == 0 and waiting:
            name, tokens, own = waiting.pop()
            core.add_request(name, {"prompt_token_ids": tokens, "type": "token"}, own)
        if step in (4, 9, 14):
            core.abort_request([f"goner {(4, 9, 14).index(step)}"])

    found = {name: [driver.Sample()] for name in (*SHORT, *(name for name, _, _ in goners))}
    for name, tokens, own in goners:
        core.add_request(name, {"prompt_token_ids": tokens, "type": "token"}, own)
    step = 0
    while core.has_unfinished_requests() or waiting:
        for output in core.step():
            driver.collect(found[output.request_id], output)
        step += 1
        join(step)
    assert driver.differences({name: found[name] for name in SHORT}, answers) == {}
    assert held(engine) == (0, 0)


def test_prefix_cache_hits(engine: Any, small: str, answers: Any) -> None:
    """The same long prompts twice, and prompts that are whole blocks: what is cached changes nothing."""
    whole = []
    for n in (32, 33, 64, 65):
        extra = midstep.request(cfg={"scale": 2.0, "negative": prompt(n, 51)})
        whole.append((f"whole {n}", prompt(n, 50), params(replace(CASES[0], max_tokens=12), extra_args=extra)))
    first = {name: samples[0].ids for name, samples in driver.run(engine, whole).items()}
    assert {name: samples[0].ids for name, samples in driver.run(engine, whole).items()} == first
    names = ("a long prompt, a longer companion", "a long prompt, sampled")
    for _ in range(2):
        assert driver.differences(driver.run(engine, crowd(small, names)), answers) == {}


def test_groups_are_chunked_and_preempted(tight: Any, small: str, answers: Any) -> None:
    """16 tokens per step, 9 blocks: prompts are chunked, groups are preempted whole and come back, tokens are equal."""
    with driver.preemptions(tight) as preempted:
        assert driver.differences(driver.run(tight, crowd(small, SHORT)), answers) == {}
    assert any("#" in name for name in preempted), "no group was preempted: the test does not test it any more"
    assert held(tight) == (0, 0)


def test_who_came_first_keeps_its_blocks(tight: Any, small: str, answers: Any) -> None:
    """A single request that came before groups is not preempted for them, though they are scheduled before it."""
    first = ("first", prompt(30, 90), params(replace(CASES[0], max_tokens=90), extra_args=None))
    names = ("ids, greedy", "text, greedy", "a longer companion")
    with driver.preemptions(tight) as preempted:
        found = driver.run(tight, [first, *crowd(small, names)])
    assert driver.differences({name: found[name] for name in names}, answers) == {}
    assert preempted, "nobody was preempted: the test does not test it any more"
    assert not any(name.startswith("first") for name in preempted), preempted
    assert held(tight) == (0, 0)


def test_dropped_tokens_in_flight(tight: Any, small: str, answers: Any) -> None:
    """reset_prefix_cache(reset_running_requests=True) throws tokens in flight away; they are drawn again, the same."""

    def reset(step: int) -> None:
        if step % 7 == 3 and step < 90:
            tight.llm_engine.reset_prefix_cache(reset_running_requests=True)

    found = driver.run(tight, crowd(small, ("ids, greedy", "ids, sampled", "a penalty")), reset)
    assert driver.differences(found, answers) == {}


def test_what_ends_a_request_ends_its_companion(engine: Any, small: str, answers: Any) -> None:
    """A stop token, and min_tokens before it, and a rule: nothing is left, and the answer is the expected one."""
    case, whole = named("ids, greedy"), list(answers["ids, greedy"][0].ids)
    tokens = scenario.prompt_ids(small, case)
    stop = driver.run(engine, [("stop", tokens, params(case, stop_token_ids=[whole[5]]))])["stop"][0]
    assert stop.ids == whole[: whole.index(whole[5]) + 1]
    assert (stop.finish_reason, held(engine)) == ("stop", (0, 0))
    ruled = midstep.request(**(case.methods or {}), deepconf={"threshold": 1e9, "window": 3})
    found = driver.run(engine, [("rule", tokens, params(case, extra_args=ruled))])["rule"][0]
    assert (found.ids, found.stop_reason, held(engine)) == (whole[:3], "midstep:deepconf", (0, 0))


@pytest.mark.parametrize("late", [0, 3])
def test_a_companion_that_is_late_is_caught(engine: Any, small: str, answers: Any, late: int) -> None:
    """A companion that misses one step ends its request, with a reason and without a token that nobody guided."""
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    original, missed = scheduler._reserve_prefill_lookahead, set[str]()

    def reserve(request: Any, computed: int, count: int) -> int:
        name, at = request.request_id, request.num_output_tokens + request.num_output_placeholders
        if "#" in name and name in scheduler._released and at == late and name not in missed:
            missed.add(name)
            return 0  # the main request is scheduled alone, which only a broken scheduler does
        return int(original(request, computed, count))

    scheduler._reserve_prefill_lookahead = reserve
    try:
        found = driver.run(engine, crowd(small, ("ids, greedy", "a plain neighbour")))
    finally:
        del scheduler._reserve_prefill_lookahead
    answer = found["ids, greedy"][0]
    assert len(missed) == 1
    assert (answer.finish_reason, answer.stop_reason) == ("stop", "midstep:cfg:companion")
    assert answer.ids == list(answers["ids, greedy"][0].ids)[:late]
    assert answer.report is not None
    assert [(fault.method, fault.fault, fault.position) for fault in answer.report.faults] == [
        ("cfg", "companion", late)
    ]
    assert driver.differences({"a plain neighbour": found["a plain neighbour"]}, answers) == {}
    assert held(engine) == (0, 0)


def test_groups_that_have_seats_are_admitted_at_once(engine: Any) -> None:
    """Eight groups of two rows take the sixteen seats in one step: no seat is kept for a member that has its own."""
    extra = midstep.request(cfg={"negative": prompt(6, 80)})
    case, running = Case("", "", None, {"temperature": 0.0}, max_tokens=6), list[int]()
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    asked = [(f"{i}", prompt(5, i), params(case, extra_args=extra)) for i in range(8)]
    driver.run(engine, asked, lambda step: running.append(len(scheduler.running)))
    assert running[0] == 16, running
    assert held(engine) == (0, 0)


@pytest.mark.parametrize("rare", ["group", "single"])
def test_nobody_starves(engine: Any, rare: str) -> None:
    """One group in a stream of single requests, and one single in a stream of groups: each has its turn.

    Sixteen seats become free one by one, so a group that did not hold its place in the queue would wait to the end.
    """
    group = midstep.request(cfg={"scale": 1.5, "negatives": [prompt(6, 80), prompt(7, 81)]})
    single = midstep.request(min_p={"p": 0.1})
    often, once = (single, group) if rare == "group" else (group, single)
    count = 40 if rare == "group" else 14
    at = count // 2

    def request(i: int) -> tuple[str, list[int], Any]:
        one = Case("", "", None, {"temperature": 1.0}, seed=i, max_tokens=9 + i * 5 % 7)
        return f"{i}", prompt(5, i), params(one, extra_args=once if i == at else often)

    core, first = engine.llm_engine, dict[str, int]()
    for name, tokens, own in map(request, range(count)):
        core.add_request(name, {"prompt_token_ids": tokens, "type": "token"}, own)
    scheduler, step = core.engine_core.engine_core.scheduler, 0
    while core.has_unfinished_requests():
        core.step()
        step += 1
        for running in scheduler.running:
            first.setdefault(running.request_id.partition("-")[0], step)
    begun = [first[f"{i}"] for i in range(count)]
    assert begun == sorted(begun), "who came later was admitted earlier"
    assert held(engine) == (0, 0)


def test_what_cannot_be_served_is_refused(tight: Any, small: str) -> None:
    """A group that outgrows the cache, a prompt of one token, a context that is too short: refused with the way out."""
    case, core = named("ids, greedy"), tight.llm_engine
    own = scenario.prompt_ids(small, case)

    def refused(match: str, tokens: list[int], more: Any) -> None:
        with pytest.raises(ValueError, match=match):
            core.add_request("refused", {"prompt_token_ids": tokens, "type": "token"}, more)

    refused(r"its 2 rows may come to \d+ tokens; the KV cache has room for", own, params(case, max_tokens=400))
    refused("a prompt of 1 token", [5], params(case))
    refused("a prompt of 1 token", [5, 6], params(case, extra_args=midstep.request(cfg={})))
    refused("context has 160", [5, 6], params(case, extra_args=midstep.request(cfg={"negative": [7] * 600})))
    assert held(tight) == (0, 0)
