"""Guided requests: one request for the user, its companions in the engine, and lockstep whatever the scheduler does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engines import companions
from engines.companions import CROWD, Guided
from engines.vllm import driver

import midstep


def params(one: Guided, **more: Any) -> Any:
    """Return a request of the crowd as SamplingParams."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    own = {"temperature": 1.0, **one.sampling, "seed": one.seed, "max_tokens": one.tokens, "ignore_eos": True}
    kind = {"output_kind": RequestOutputKind.FINAL_ONLY}
    bias = {"logit_bias": dict(one.bias)} if one.bias else {}
    return SamplingParams(**{**own, **bias, **kind, "extra_args": one.entry() or None, **more})


def crowd(names: tuple[str, ...] = ()) -> list[tuple[str, list[int], Any]]:
    """Return the crowd, or some of it, for the driver."""
    return [(one.name, list(one.prompt), params(one)) for one in CROWD if not names or one.name in names]


def ids(found: dict[str, list[driver.Sample]]) -> dict[str, list[int]]:
    """Return every answer's ids by name."""
    return {name: samples[0].ids for name, samples in found.items()}


def held(engine: Any) -> tuple[int, int]:
    """Return the requests that the scheduler knows, and the KV blocks in use, cached ones left out."""
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    pool = scheduler.kv_cache_manager.block_pool
    return len(scheduler.requests), pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()


def test_one_request_is_guided_and_its_client_sees_one_answer(engine: Any, small: str) -> None:
    """Ids, usage and report of one guided request; nothing is left behind."""
    found = driver.run(engine, crowd(("longer negative",)))["longer negative"][0]
    assert found.ids == companions.expected(small)["longer negative"]
    assert found.finish_reason == "length"
    assert found.report is not None
    assert found.report.tokens.companion == 61 + companions.TOKENS
    assert found.report.methods["cfg"].changed > 0
    assert held(engine) == (0, 0)


def test_a_scale_of_one_is_unguided(engine: Any, small: str) -> None:
    """Scale 1: exactly the tokens that the request has without guidance."""
    found = ids(driver.run(engine, crowd(("unguided",))))
    assert found["unguided"] == companions.plain(small, "unguided") == companions.expected(small)["unguided"]


def test_a_crowd_of_guided_requests(engine: Any, small: str) -> None:
    """Twelve requests at once, 25 rows in 16 seats: all as midstep-eager answers each alone."""
    assert ids(driver.run(engine, crowd())) == companions.expected(small)
    assert held(engine) == (0, 0)


def test_guided_requests_join_and_leave(engine: Any, small: str) -> None:
    """Requests that join a running batch, and neighbours that are aborted, change nothing."""
    core, waiting = engine.llm_engine, crowd()
    goner = [(f"goner {i}", companions.prompt(9 + i, 70 + i), params(CROWD[i], max_tokens=100)) for i in range(3)]

    def join(step: int) -> None:
        if step % 3 == 0 and waiting:
            name, tokens, own = waiting.pop()
            core.add_request(name, {"prompt_token_ids": tokens, "type": "token"}, own)
        if step in (4, 9, 14):
            core.abort_request([f"goner {(4, 9, 14).index(step)}"])

    collected: dict[str, list[driver.Sample]] = {one.name: [driver.Sample()] for one in CROWD}
    collected |= {name: [driver.Sample()] for name, _, _ in goner}
    found = _collecting(engine, goner, collected, join)
    assert {name: answer for name, answer in ids(found).items() if "goner" not in name} == companions.expected(small)
    assert held(engine) == (0, 0)


def test_prefix_cache_hits(engine: Any, small: str) -> None:
    """The same long prompts twice, and prompts that are whole blocks: what is cached changes nothing."""
    whole = [
        (
            f"whole {n}",
            companions.prompt(n, 50),
            params(Guided("", [], companions.negative(n, 51), {"temperature": 0.0})),
        )
        for n in (32, 33, 64, 65)
    ]
    first = ids(driver.run(engine, whole))
    assert ids(driver.run(engine, whole)) == first
    assert ids(driver.run(engine, crowd())) == ids(driver.run(engine, crowd())) == companions.expected(small)


def test_chunked_prefill_and_preemption(tight: Any, small: str) -> None:
    """16 tokens per step, 9 blocks: prompts are chunked, groups are preempted whole and come back, tokens are equal."""
    preempted = _preemptions(tight)
    few = tuple(one.name for one in CROWD if one.name != "two negatives")
    found = ids(driver.run(tight, crowd(few)))
    assert found == {name: answer for name, answer in companions.expected(small).items() if name in few}
    assert len(preempted) > 1, "nobody was preempted: the test does not test it any more"
    assert held(tight) == (0, 0)


def test_dropped_tokens_in_flight(tight: Any, small: str) -> None:
    """reset_prefix_cache(reset_running_requests=True) throws tokens in flight away; they are drawn again, the same."""

    def reset(step: int) -> None:
        if step % 7 == 3 and step < 90:
            tight.llm_engine.reset_prefix_cache(reset_running_requests=True)

    some = ("greedy", "sampled", "penalised", "steered")
    expected = {name: answer for name, answer in companions.expected(small).items() if name in some}
    assert ids(driver.run(tight, crowd(some), reset)) == expected


def test_samples_of_one_request_have_companions_of_their_own(engine: Any, small: str) -> None:
    """n = 2: the first sample is the seeded answer, the second one another, each with its report."""
    one = next(one for one in CROWD if one.name == "sampled")
    found = driver.run(engine, [("two", list(one.prompt), params(one, n=2))])["two"]
    assert found[0].ids == companions.expected(small)["sampled"] != found[1].ids
    assert [sample.report and sample.report.tokens.companion for sample in found] == [33 + companions.TOKENS] * 2


def test_what_ends_a_request_ends_its_companion(engine: Any, small: str) -> None:
    """A stop token, and min_tokens before it, a rule, an abort: nothing is left, and the answer is the expected one."""
    whole = companions.expected(small)["greedy"]
    one = CROWD[0]
    stop = driver.run(engine, [("stop", list(one.prompt), params(one, stop_token_ids=[whole[5]]))])["stop"][0]
    assert stop.ids[:-1] == whole[: whole.index(whole[5])]
    assert (stop.finish_reason, held(engine)) == ("stop", (0, 0))
    later = params(one, stop_token_ids=[whole[5]], min_tokens=10, max_tokens=12)
    assert len(driver.run(engine, [("later", list(one.prompt), later)])["later"][0].ids) >= 10
    ruled = midstep.request(**one.methods or {}, deepconf={"threshold": 1e9, "window": 3})
    found = driver.run(engine, [("rule", list(one.prompt), params(one, extra_args=ruled))])["rule"][0]
    assert (found.ids, found.stop_reason, held(engine)) == (whole[:3], "midstep:deepconf", (0, 0))


@pytest.mark.parametrize("late", [0, 3])
def test_a_companion_that_is_late_is_caught(engine: Any, small: str, late: int) -> None:
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
        found = driver.run(engine, crowd(("greedy", "steered")))
    finally:
        del scheduler._reserve_prefill_lookahead
    answer = found["greedy"][0]
    assert len(missed) == 1
    assert (answer.finish_reason, answer.stop_reason) == ("stop", "midstep:cfg:companion")
    assert answer.ids == companions.expected(small)["greedy"][:late]
    assert answer.report is not None
    assert [(fault.method, fault.fault, fault.position) for fault in answer.report.faults] == [
        ("cfg", "companion", late)
    ]
    assert found["steered"][0].ids == companions.expected(small)["steered"]
    assert held(engine) == (0, 0)


@pytest.mark.parametrize("rare", ["group", "single"])
def test_nobody_starves(engine: Any, rare: str) -> None:
    """One group in a stream of single requests, and one single in a stream of groups: each has its turn.

    Sixteen seats become free one by one, so a group that did not hold its place in the queue would wait to the end.
    """
    group = midstep.request(cfg={"scale": 1.5, "negatives": [companions.prompt(6, 80), companions.prompt(7, 81)]})
    single = midstep.request(min_p={"p": 0.1})
    often, once = (single, group) if rare == "group" else (group, single)
    count = 40 if rare == "group" else 14
    at = count // 2

    def request(i: int) -> tuple[str, list[int], Any]:
        one = Guided("", [], None, {"temperature": 1.0}, seed=i, tokens=9 + i * 5 % 7)
        return f"{i}", companions.prompt(5, i), params(one, extra_args=once if i == at else often)

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


def test_what_cannot_be_served_is_refused(tight: Any) -> None:
    """A group that outgrows the cache, a prompt of one token, an order that nobody gave: refused with the way out."""
    one = CROWD[0]
    core = tight.llm_engine

    def refused(match: str, tokens: list[int], own: Any) -> None:
        with pytest.raises(ValueError, match=match):
            core.add_request("refused", {"prompt_token_ids": tokens, "type": "token"}, own)

    refused(
        r"its 2 rows may come to \d+ tokens; the KV cache has room for", list(one.prompt), params(one, max_tokens=400)
    )
    refused("a prompt of 1 token", [5], params(one))
    refused("a prompt of 1 token", [5, 6], params(one, extra_args=midstep.request(cfg={})))
    refused("context has 160", [5, 6], params(one, extra_args=midstep.request(cfg={"negative": [7] * 600})))
    assert held(tight) == (0, 0)


def _collecting(
    engine: Any,
    first: list[tuple[str, list[int], Any]],
    found: dict[str, list[driver.Sample]],
    between: Callable[[int], None],
) -> dict[str, list[driver.Sample]]:
    core = engine.llm_engine
    for name, tokens, own in first:
        core.add_request(name, {"prompt_token_ids": tokens, "type": "token"}, own)
    step = 0
    while core.has_unfinished_requests() or len(found) > sum(bool(samples[0].ids) for samples in found.values()) + 3:
        for output in core.step():
            driver.collect(found[output.request_id], output)
        step += 1
        between(step)
    return found


def _preemptions(engine: Any) -> list[str]:
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    original, preempted = scheduler._preempt_request, list[str]()

    def preempt(request: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(request.request_id)
        return original(request, *args, **kwargs)

    scheduler._preempt_request = preempt
    return preempted
