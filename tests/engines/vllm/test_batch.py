"""What else is in the batch, and what the scheduler does to a request, never changes its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engines import matrix, scenario
from engines.vllm import driver
from engines.vllm.crowd import MIN_P, STATEFUL, crowd, prompt, sampling

import midstep


def ids(found: dict[str, list[driver.Sample]]) -> dict[str, list[Any]]:
    """Return every sample's ids and stop reason by name."""
    return {name: [(sample.ids, sample.stop_reason) for sample in samples] for name, samples in found.items()}


@pytest.fixture(scope="session")  # pytest comes back to this module for each way of scheduling
def alone(small: str) -> dict[str, list[Any]]:
    """The crowd's answers by midstep-eager: one request at a time, no batch at all."""
    import midstep_eager

    network, _ = scenario.load(small)
    answers = {}
    for name, tokens, params in crowd():
        own = midstep.Sampling(temperature=1.2, repetition_penalty=params.repetition_penalty)
        options = midstep_eager.Options(max_tokens=20, seed=params.seed, ignore_eos=True, sampling=own)
        answer = midstep_eager.generate(network, None, tokens, options, extra=params.extra_args)[0]
        answers[name] = [(answer.ids, answer.stop_reason)]
    assert any(reason for [(_, reason)] in answers.values()), (
        "no request of the crowd is stopped: change its thresholds"
    )
    return answers


def test_alone_and_in_a_crowd(engine: Any, alone: dict[str, Any]) -> None:
    """Eight requests of every kind in one batch answer as each alone."""
    assert ids(driver.run(engine, crowd())) == alone


def test_admitted_late(engine: Any, alone: dict[str, Any]) -> None:
    """A request that joins a running batch answers as if it had been there first."""
    core, waiting = engine.llm_engine, crowd()

    def join(step: int) -> None:
        if step % 3 == 0 and waiting:
            name, tokens, params = waiting.pop()
            core.add_request(name, {"prompt_token_ids": tokens, "type": "token"}, params)

    first = waiting.pop(0)
    found = {name: [driver.Sample()] for name, _, _ in crowd()}
    found |= _collecting(engine, [first], found, join)
    assert ids(found) == alone


def test_a_neighbour_is_aborted(engine: Any, alone: dict[str, Any]) -> None:
    """Requests whose neighbours leave in the middle of their answers go on unchanged."""
    core, crowded = engine.llm_engine, crowd()
    others = [(f"goner {i}", prompt(9, 90 + i), sampling(90 + i, STATEFUL, max_tokens=200)) for i in range(4)]

    def leave(step: int) -> None:
        if step in (3, 4, 7, 8):
            core.abort_request([f"goner {(3, 4, 7, 8).index(step)}"])

    mixed = [request for pair in zip(others, crowded[:4], strict=True) for request in pair] + crowded[4:]
    found = driver.run(engine, mixed, leave)
    assert {name: answer for name, answer in ids(found).items() if name in alone} == alone
    matrix.record(driver.RUNNER, "abort", "works")


def test_prefix_cache_hits(engine: Any) -> None:
    """The same long prompts twice: the second time most of each comes out of the cache, and nothing else changes."""
    long = [(f"long {i}", prompt(70 + 11 * i, 7), sampling(i, STATEFUL)) for i in range(4)]
    assert ids(driver.run(engine, long)) == ids(driver.run(engine, long))


def test_chunked_prefill_and_preemption(tight: Any, alone: dict[str, Any]) -> None:
    """16 tokens per step, 9 blocks: every prompt is chunked, requests are preempted and come back, tokens are equal."""
    count = _counting_preemptions(tight)
    assert ids(driver.run(tight, crowd())) == alone
    assert count() > 0, "nobody was preempted: the test does not test it any more"
    matrix.record(driver.RUNNER, "preemption, chunked prefill", "works")


def test_dropped_tokens_in_flight(tight: Any, alone: dict[str, Any]) -> None:
    """reset_prefix_cache(reset_running_requests=True) throws tokens in flight away; they are drawn again, the same."""

    def reset(step: int) -> None:
        if step % 5 == 2 and step < 60:
            tight.llm_engine.reset_prefix_cache(reset_running_requests=True)

    assert ids(driver.run(tight, crowd(), reset)) == alone


def test_requests_without_a_method_are_the_engines_own(engine: Any) -> None:
    """Greedy and seeded requests beside steered ones: ids and logprobs as without midstep, bit by bit."""
    plain = [
        ("greedy", prompt(12, 100), sampling(None, None, temperature=0.0, logprobs=2)),
        ("seeded", prompt(23, 101), sampling(3, None, logprobs=2)),
        ("penalised", prompt(17, 102), sampling(None, None, temperature=0.0, frequency_penalty=0.5, logprobs=2)),
    ]
    # beside requests that do nothing, so that the batch, and with it the order of the model's sums, is the same
    beside = [(name, tokens, sampling(seed, None, temperature=0.0)) for seed, (name, tokens, _) in enumerate(crowd())]
    before, after = driver.run(engine, plain + beside), driver.run(engine, plain + crowd(max_tokens=20))
    for name in ("greedy", "seeded", "penalised"):
        assert before[name][0].ids == after[name][0].ids
        assert before[name][0].logprobs == after[name][0].logprobs


def test_returned_logprobs_are_the_models_own(engine: Any) -> None:
    """Logprobs of a steered greedy request equal the plain one's, bit by bit: min-p never moves the best token."""
    tokens = prompt(15, 5)
    answers = [
        driver.run(engine, [("one", tokens, sampling(None, extra, temperature=0.0, logprobs=5, prompt_logprobs=2))])
        for extra in (None, MIN_P)
    ]
    plain, steered = (answer["one"][0] for answer in answers)
    assert plain.ids == steered.ids
    assert plain.logprobs == steered.logprobs


def _collecting(
    engine: Any,
    first: list[tuple[str, list[int], Any]],
    found: dict[str, list[driver.Sample]],
    between: Callable[[int], None],
) -> dict[str, list[driver.Sample]]:
    core = engine.llm_engine
    for name, tokens, params in first:
        core.add_request(name, {"prompt_token_ids": tokens, "type": "token"}, params)
    step = 0
    while core.has_unfinished_requests():
        for output in core.step():
            driver.collect(found[output.request_id], output)
        step += 1
        between(step)
    return found


def _counting_preemptions(engine: Any) -> Callable[[], int]:
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    original, preempted = scheduler._preempt_request, []

    def preempt(request: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(request.request_id)
        return original(request, *args, **kwargs)

    scheduler._preempt_request = preempt
    return lambda: len(preempted)
