"""The report reaches the client however its request ends, and says what happened to exactly the tokens it got."""

from __future__ import annotations

import asyncio
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from engines import examples, scenario
from engines.vllm import driver
from engines.vllm.crowd import prompt, sampling

import midstep


@dataclass(frozen=True)
class Asynchronous:
    """The last output of a request that was aborted, the reports that were kept, and what the example printed."""

    aborted: Any
    kept: Any
    example: str


TRACED = midstep.request(trace=True, min_p={"p": 0.2})
STOPS = midstep.request(trace=True, min_p={"p": 0.1}, deepconf={"threshold": 4.5, "window": 3})


def traced_ids(sample: driver.Sample) -> list[int]:
    """Return the ids of a sample's trace."""
    assert sample.report is not None
    assert sample.report.trace is not None
    return [token.token for token in sample.report.trace]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_reaches_its_length(engine: Any, streamed: bool) -> None:
    """One report, with one line of trace per token and the seed that was sent."""
    sample = driver.run(engine, [("a", prompt(9, 1), sampling(5, TRACED, streamed=streamed))])["a"][0]
    assert sample.finish_reason == "length"
    assert traced_ids(sample) == sample.ids
    assert sample.report.seed == 5
    assert sample.report.methods["min_p"].tokens == len(sample.ids)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_a_method_ends(engine: Any, streamed: bool) -> None:
    """The reason is in stop_reason, rule and numbers are in the report, and no text is lost."""
    sample = driver.run(engine, [("a", prompt(9, 1), sampling(5, STOPS, max_tokens=60, streamed=streamed))])["a"][0]
    assert (sample.finish_reason, sample.stop_reason) == ("stop", "midstep:deepconf")
    assert sample.report.stop.rule == "deepconf"
    assert sample.report.stop.position == len(sample.ids) - 1
    assert sample.report.stop.value < sample.report.stop.threshold == 4.5
    assert traced_ids(sample) == sample.ids
    long = midstep.request(min_p={"p": 0.1})
    cut = driver.run(engine, [("a", prompt(9, 1), sampling(5, long, max_tokens=len(sample.ids)))])["a"][0]
    assert (cut.ids, cut.text) == (sample.ids, sample.text)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_a_stop_string_ends(engine: Any, small: str, streamed: bool) -> None:
    """vLLM's API process ends it, and makes its last output itself; the report counts the tokens that were kept."""
    tokens = prompt(9, 1)
    whole = driver.run(engine, [("a", tokens, sampling(5, TRACED))])["a"][0]
    word = scenario.load_tokenizer(small).decode(whole.ids[7:9])
    sample = driver.run(engine, [("a", tokens, sampling(5, TRACED, stop=[word], streamed=streamed))])["a"][0]
    assert (sample.finish_reason, sample.stop_reason) == ("stop", word)
    assert traced_ids(sample) == sample.ids == whole.ids[: len(sample.ids)]
    assert len(sample.ids) < len(whole.ids)


def test_four_samples_seeded_and_not(engine: Any) -> None:
    """n = 4: four different answers, each with its report; seeded, they come again, from seed to seed + 3."""
    tokens = prompt(11, 2)
    found = driver.run(engine, [(name, tokens, sampling(seed, TRACED, n=4)) for name, seed in (("s", 7), ("u", None))])
    again = driver.run(engine, [("s", tokens, sampling(7, TRACED, n=4)), ("t", tokens, sampling(9, TRACED))])
    for samples in found.values():
        assert len({tuple(sample.ids) for sample in samples}) == 4
        assert [sample.report.sample for sample in samples] == [0, 1, 2, 3]
        assert all(traced_ids(sample) == sample.ids for sample in samples)
    assert [sample.report.seed for sample in found["s"]] == [7, 8, 9, 10]
    assert [sample.ids for sample in found["s"]] == [sample.ids for sample in again["s"]]
    assert again["t"][0].ids == found["s"][2].ids


def test_an_unseeded_answer_can_be_had_again_by_the_reported_seed(engine: Any) -> None:
    """The seed in the report of an unseeded request, sent with the same request, gives the same answer."""
    tokens = prompt(11, 3)
    first = driver.run(engine, [("a", tokens, sampling(None, TRACED))])["a"][0]
    second = driver.run(engine, [("a", tokens, sampling(first.report.seed, TRACED))])["a"][0]
    assert first.ids == second.ids


def test_ids_that_look_like_a_sample(engine: Any) -> None:
    """A caller's own id `3_x` is not taken for the fourth of several samples."""
    sample = driver.run(engine, [("3_x", prompt(9, 1), sampling(5, TRACED))])["3_x"][0]
    assert (sample.report.sample, sample.report.seed) == (0, 5)


def test_the_callers_parameters_are_not_touched(engine: Any) -> None:
    """The SamplingParams object that a caller passes is afterwards what it was, extra_args too."""
    mine = sampling(5, TRACED, top_k=30, repetition_penalty=1.2)
    before = (repr(mine), dict(mine.extra_args))
    driver.run(engine, [("a", prompt(9, 1), mine), ("b", prompt(9, 2), mine)])
    assert (repr(mine), mine.extra_args) == before


def test_two_requests_from_one_object_draw_apart(engine: Any) -> None:
    """Unseeded requests that share one SamplingParams object have their own keys, seeds and state."""
    mine = sampling(None, TRACED)
    found = driver.run(engine, [("a", prompt(9, 1), mine), ("b", prompt(9, 1), mine)])
    assert found["a"][0].ids != found["b"][0].ids


@pytest.fixture(scope="module")
def asynchronous(small: str) -> Asynchronous:
    """What vLLM's asynchronous engine, in three processes, answered."""
    return asyncio.run(_asynchronous(small))


def test_the_client_goes_away(asynchronous: Asynchronous) -> None:
    """An aborted answer has a report of the tokens that were delivered, and it is kept for `/midstep/report/`."""
    sample = driver.Sample()
    driver.collect([sample], asynchronous.aborted)
    assert sample.finish_reason == "abort"
    assert traced_ids(sample) == sample.ids
    assert asynchronous.kept["gone"]["0"]["methods"]["min_p"]["tokens"] == len(sample.ids)


def test_the_example_of_an_asynchronous_engine(asynchronous: Asynchronous) -> None:
    """It prints the answer and its report."""
    assert "top_nsigma" in asynchronous.example
    assert "tokens=40" in asynchronous.example


def test_the_example_in_this_process(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints two samples with their reports."""
    examples.load("vllm_offline").main(engine)
    assert capsys.readouterr().out.count("tokens changed by min_p; ") == 2


async def _asynchronous(model: str) -> Asynchronous:
    import os

    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from midstep_vllm.client import kept

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    try:
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **driver.USUAL))
    finally:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        last, asked = None, {"prompt_token_ids": prompt(9, 1), "type": "token"}
        async for output in engine.generate(asked, sampling(5, TRACED, max_tokens=300, cumulative=True), "gone"):
            if len(output.outputs[0].token_ids) > 10 and not output.finished:
                await engine.abort("gone")
            last = output
        reports = dict(kept(engine.output_processor))
        with redirect_stdout(StringIO()) as said:
            await examples.load("vllm_async").main(engine)
        return Asynchronous(last, reports, said.getvalue())
    finally:
        engine.shutdown()
