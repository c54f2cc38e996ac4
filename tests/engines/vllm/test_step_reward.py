"""A process reward beside plain requests: their tokens stay vLLM's, and their steps are judged in another process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from engines import examples, judging
from engines.vllm import driver
from engines.vllm.crowd import crowd, prompt, sampling

import midstep

LENGTH = 60
SECONDS = 120  # until a reward's process has begun; a deadline, not a wait


def scheduler(engine: Any) -> Any:
    """Return the engine's scheduler."""
    return engine.llm_engine.engine_core.engine_core.scheduler


def settle(engine: Any) -> Callable[[int], None]:
    """Return what waits, after each step, until every verdict has come: so that where a request ends is known."""

    def wait(step: int) -> None:
        watcher, end = scheduler(engine)._watcher, time.monotonic() + SECONDS
        while watcher and any(s.verdict is None for one in watcher._ones.values() for s in one.steps):
            assert time.monotonic() < end
            time.sleep(0.001)
            watcher.poll()

    return wait


class Bench:
    """An engine, the answers of plain requests, and a separator that each of them has."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.tokenizer = engine.get_tokenizer()
        plain = driver.run(engine, self.requests(None))
        self.ids = {name: samples[0].ids for name, samples in plain.items()}
        self.texts = {name: samples[0].text for name, samples in plain.items()}
        self.separator = judging.separators(self.tokenizer, list(self.ids.values()))
        self.steps = {name: judging.steps(self.tokenizer, ids, self.separator) for name, ids in self.ids.items()}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self.tokenizer.decode(list(ids)))

    def requests(self, extra: Any, **more: Any) -> list[tuple[str, list[int], Any]]:
        """Return four requests that vLLM draws itself, with seeds of their own."""
        return [(f"{i}", prompt(9, i), sampling(i, extra, max_tokens=LENGTH, **more)) for i in range(4)]

    def ask(self, reward: str = "judged", **params: Any) -> dict[str, str]:
        """Return what a request asks."""
        return midstep.request(**judging.asked(self.separator, reward, **params))

    def first_below(self, name: str, below: float) -> int | None:
        """Return the first step of an answer that is below."""
        return next((i for i, (_, score) in enumerate(self.steps[name]) if score < below), None)


@pytest.fixture(scope="module")
def bench(engine: Any) -> Bench:
    """Return plain answers."""
    return Bench(engine)


def test_steps_are_judged_and_no_token_changes(bench: Bench) -> None:
    """Every step has its score, and every token is the one that vLLM draws without midstep."""
    found = driver.run(bench.engine, bench.requests(bench.ask()), settle(bench.engine))
    for name, samples in found.items():
        assert (samples[0].ids, samples[0].finish_reason) == (bench.ids[name], "length")
        judging.right(samples[0].report, bench.steps[name])
        steps = judging.told(samples[0].report)
        assert {step.verdict for step in steps if step.end < LENGTH - 2} <= {"go on"}
        assert samples[0].report.tokens.reward > LENGTH / 2
        assert (samples[0].report.seed, samples[0].report.stop) == (None, None)
    assert not scheduler(bench.engine).watches
    assert driver.held(bench.engine) == (0, 0)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_weak_step_ends_its_request(bench: Bench, streamed: bool) -> None:
    """At the next token, or the one after it, which ran ahead; the neighbours notice nothing."""
    below = sorted(score for known in bench.steps.values() for end, score in known if end < LENGTH - 3)[2] + 0.001
    judged = bench.requests(bench.ask(do="stop", below=below), streamed=streamed)
    others = [(f"other {name}", *rest) for name, *rest in [*crowd()[:2], *bench.requests(None)[:1]]]
    alone = driver.run(bench.engine, others)
    found = driver.run(bench.engine, [*judged, *others], settle(bench.engine))
    for name, _, _ in others:
        assert found[name][0].ids == alone[name][0].ids
    ended = 0
    for name in bench.ids:
        sample, step = found[name][0], bench.first_below(name, below)
        steps = judging.told(sample.report)
        if sample.finish_reason == "length":
            assert sample.ids == bench.ids[name]
            assert step is None or bench.steps[name][step][0] >= LENGTH - 3
            continue
        ended += 1
        assert (sample.finish_reason, sample.stop_reason) == ("stop", "midstep:step_reward")
        assert [one.verdict for one in steps[: step + 1]] == ["go on"] * step + ["stop"]
        assert steps[step].end == bench.steps[name][step][0] < len(sample.ids) <= steps[step].end + 3
        assert sample.ids == bench.ids[name][: len(sample.ids)]
        assert bench.texts[name].startswith(sample.text)
        assert sample.text
        stop = sample.report.stop
        assert (stop.rule, stop.position) == ("step_reward", len(sample.ids) - 1)
        assert (stop.value, stop.threshold) == (bench.steps[name][step][1], below)
    assert ended > 0
    assert driver.held(bench.engine) == (0, 0)


def test_the_weakest_of_three_samples_end(bench: Bench) -> None:
    """Until one is left, which is whole; those that ended are beginnings of what they would have been."""
    plain = [("a", prompt(9, 1), sampling(5, None, max_tokens=LENGTH, n=3))]
    whole = [sample.ids for sample in driver.run(bench.engine, plain)["a"]]
    separator = judging.separators(bench.tokenizer, whole)
    extra = midstep.request(**judging.asked(separator, do="weakest"))
    request = [("a", prompt(9, 1), sampling(5, extra, max_tokens=LENGTH, n=3))]
    samples = driver.run(bench.engine, request, settle(bench.engine))["a"]
    scores = [judging.steps(bench.tokenizer, ids, separator) for ids in whole]
    first = min(range(3), key=lambda i: (scores[i][0][1], -i))
    assert samples[first].stop_reason == "midstep:step_reward"
    assert next(step.verdict for step in judging.told(samples[first].report)) == "weakest"
    left = [i for i in range(3) if samples[i].stop_reason is None]
    assert len(left) == 1
    for sample, ids in zip(samples, whole, strict=True):
        assert sample.ids == ids[: len(sample.ids)]
    assert all(samples[i].ids == whole[i] for i in left)


def test_rewards_that_fail_change_nothing(bench: Bench) -> None:
    """One that sleeps, one that blocks its loop, one that raises, one whose process dies: the same tokens, at once."""
    seen: dict[str, set[str]] = {reward: set() for reward in judging.FAILING}
    asked, end = judging.FAILING, time.monotonic() + SECONDS
    while asked:
        assert time.monotonic() < end, seen
        requests = [
            (f"{reward} {name}", *rest)
            for reward in asked
            for name, *rest in bench.requests(bench.ask(reward, do="stop", below=2.0))
        ]
        found = driver.run(bench.engine, requests)
        for reward, name in product(asked, bench.ids):
            sample = found[f"{reward} {name}"][0]
            assert (sample.ids, sample.finish_reason) == (bench.ids[name], "length")
            steps = judging.told(sample.report)
            assert len(steps) == len(bench.steps[name])
            assert {step.score for step in steps} == {None}
            seen[reward] |= {step.verdict for step in steps}
        asked = tuple(reward for reward in judging.FAILING[2:] if "gone" not in seen[reward])
    assert set().union(*seen.values()) == {"gone", "late"}


def test_beside_a_method_that_steers(bench: Bench) -> None:
    """The tokens are those of the method; the report is one."""
    steered = midstep.request(min_p={"p": 0.1})
    plain = driver.run(bench.engine, bench.requests(steered))
    separator = judging.separators(bench.tokenizer, [samples[0].ids for samples in plain.values()])
    both = midstep.request(min_p={"p": 0.1}, **judging.asked(separator))
    found = driver.run(bench.engine, bench.requests(both), settle(bench.engine))
    for name, samples in found.items():
        assert samples[0].ids == plain[name][0].ids
        judging.right(samples[0].report, judging.steps(bench.tokenizer, samples[0].ids, separator))
        assert list(samples[0].report.methods) == ["min_p", "step_reward"]


def test_what_goes_away_is_forgotten(bench: Bench) -> None:
    """An aborted request, and one that its client's stop string ends: it has its report, too."""
    core = bench.engine.llm_engine

    def abort(step: int) -> None:
        if step == 20:
            core.abort_request(["0"])

    cut = bench.decode(bench.ids["1"][25:28])
    requests = [
        *bench.requests(bench.ask())[:1],
        ("1", prompt(9, 1), sampling(1, bench.ask(), max_tokens=LENGTH, stop=[cut])),
    ]
    found = driver.run(bench.engine, requests, abort)
    assert found["1"][0].stop_reason == cut
    assert judging.told(found["1"][0].report)
    assert not scheduler(bench.engine).watches
    assert driver.held(bench.engine) == (0, 0)


def test_the_example(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints how each sample ended, whatever the reward has said by then."""
    examples.load("vllm_step_reward").main(bench.engine, "judged")
    ends = [line for line in capsys.readouterr().out.splitlines() if line[:2] != "  "]
    assert len(ends) == 4
    assert sum(line.startswith("midstep:step_reward ") for line in ends) <= 2


def test_an_engine_that_is_shut_down_leaves_no_judge(small: str) -> None:
    """Its rewards' processes end with it."""
    engine = driver.start(small, asynchronous=True)
    extra = midstep.request(**judging.asked("."))
    driver.run(engine, [("a", prompt(9, 1), sampling(1, extra))])
    children = [judge._process for judge in scheduler(engine)._watcher._judges.values()]
    end = time.monotonic() + SECONDS
    while any(child._child is None for child in children):
        assert time.monotonic() < end
        time.sleep(0.01)
    numbers = [child._child.pid for child in children]
    assert all(Path(f"/proc/{number}").exists() for number in numbers)
    driver.stop(engine)
    assert not any(_runs(number) for number in numbers)


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True
