"""What else is in the batch, and what the scheduler does to a request, never changes its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engines import scenario
from engines.vllm import driver

import midstep

MIN_P = midstep.request(min_p={"p": 0.1})
SURE = midstep.request(min_p={"p": 0.1}, deepconf={"threshold": 3.75, "window": 3})
STATEFUL = midstep.request(bracket={}, deepconf={"threshold": 2.0, "window": 6, "k": 5})


def sampling(seed: int | None = 1, extra: Any = MIN_P, **more: Any) -> Any:
    """Return hot SamplingParams, seeded."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    usual = {"temperature": 1.2, "max_tokens": 20, "ignore_eos": True, "output_kind": RequestOutputKind.FINAL_ONLY}
    return SamplingParams(seed=seed, extra_args=extra, **{**usual, **more})


def prompt(length: int, seed: int) -> list[int]:
    """Return a prompt of `length` ordinary tokens."""
    return [17 + (i * i * 31 + seed * 101 + i * 7) % 1000 for i in range(length)]


def crowd(**more: Any) -> list[tuple[str, list[int], Any]]:
    """Return 8 steered requests with prompts of 5 to 40 tokens, with state, history, stops and penalties."""
    extras = (MIN_P, SURE, STATEFUL, SURE)
    return [
        (f"steered {i}", prompt(5 + 5 * i, i), sampling(i, extras[i % 4], repetition_penalty=1.0 + 0.1 * (i % 2), **more))
        for i in range(8)
    ]


def ids(found: dict[str, list[driver.Sample]]) -> dict[str, list[Any]]:
    """Return every sample's ids and stop reason by name."""
    return {name: [(sample.ids, sample.stop_reason) for sample in samples] for name, samples in found.items()}


@pytest.fixture(scope="module")
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
    assert any(reason for [(_, reason)] in answers.values()), "no request of the crowd is stopped: change its thresholds"
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


def test_prefix_cache_hits(engine: Any) -> None:
    """The same long prompts twice: the second time most of each comes out of the cache, and nothing else changes."""
    long = [(f"long {i}", prompt(70 + 11 * i, 7), sampling(i, STATEFUL)) for i in range(4)]
    assert ids(driver.run(engine, long)) == ids(driver.run(engine, long))


def test_chunked_prefill_and_preemption(tight: Any, alone: dict[str, Any]) -> None:
    """16 tokens per step, 9 blocks: every prompt is chunked, requests are preempted and come back, tokens are equal."""
    count = _counting_preemptions(tight)
    assert ids(driver.run(tight, crowd())) == alone
    assert count() > 0, "nobody was preempted: the test does not test it any more"


def test_dropped_tokens_in_flight(tight: Any, alone: dict[str, Any]) -> None:
    """reset_prefix_cache(reset_running_requests=True) throws tokens in flight away; they are drawn again, the same."""

    def reset(step: int) -> None:
        if step % 5 == 2 and step < 60:
            tight.llm_engine.reset_prefix_cache(reset_running_requests=True)

    assert ids(driver.run(tight, crowd(), reset)) == alone


def test_requests_without_a_method_are_the_engines_own(engine: Any) -> None:
    """Greedy and seeded requests beside steered ones: ids and logprobs are those of a batch without midstep, bit by bit."""
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
    """Logprobs of a steered greedy request equal those of the plain one, bit by bit: min-p never moves the best token."""
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
