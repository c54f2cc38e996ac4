"""A process reward beside plain requests in SGLang, without overlap in this process and with it in a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from engines import judging
from engines.sglang.servers import Models, worked_out

import midstep

LENGTH = 60
SECONDS = 120  # until a reward's process has begun; a deadline, not a wait
TEXTS = ("Once upon a time there was", "The capital of France is", "To make bread, you", "My dear sister,")

Ask = Callable[..., list[Any]]


@pytest.fixture(scope="module", params=[pytest.param("engine", marks=pytest.mark.long), "server"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return what asks for greedy answers to these prompts, all at once."""
    where = request.getfixturevalue(request.param)

    def asked(extra: Any = None, prompts: Sequence[str] = TEXTS, **more: Any) -> list[Any]:
        usual = {"temperature": 0.0, "max_new_tokens": LENGTH, "ignore_eos": True, **more}
        extras = extra if isinstance(extra, list) else [extra] * len(prompts)
        params = [{**usual, "custom_params": one} for one in extras]
        if request.param == "engine":
            found = where.generate(list(prompts), params)
        else:
            found = where.post("/generate", {"text": list(prompts), "sampling_params": params}).json()
        return list(found)

    return asked


@pytest.fixture(scope="module")
def bench(ask: Ask, models: Models) -> Bench:
    """Return plain answers."""
    from transformers import AutoTokenizer

    return Bench(ask, AutoTokenizer.from_pretrained(models.small))


class Bench:
    """Plain answers, a separator that each of them has, and the scores of their steps."""

    def __init__(self, ask: Ask, tokenizer: Any) -> None:
        self.ask, self.tokenizer = ask, tokenizer
        self.ids = [answer["output_ids"] for answer in ask()]
        self.separator = judging.separators(tokenizer, self.ids)
        self.steps = [judging.steps(tokenizer, ids, self.separator) for ids in self.ids]

    def extra(self, reward: str = "judged", **params: Any) -> dict[str, str]:
        """Return what a request asks."""
        return midstep.request(**judging.asked(self.separator, reward, **params))


def until(found: Callable[[], bool]) -> None:
    """Ask again until a verdict has come: the first requests end before the reward's process has begun."""
    end = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < end


def test_steps_are_judged_and_no_token_changes(bench: Bench) -> None:
    """Each score is that of the step's text, and every token is the one that SGLang draws without midstep."""

    def judged() -> bool:
        answers = bench.ask(bench.extra())
        for answer, ids, steps in zip(answers, bench.ids, bench.steps, strict=True):
            assert answer["output_ids"] == ids
            assert answer["meta_info"]["finish_reason"]["type"] == "length"
            report = midstep.report(answer)
            judging.right(report, steps)
            assert (report.seed, report.stop) == (None, None)
        told = [step for answer in answers for step in judging.told(midstep.report(answer))]
        return sum(step.verdict == "go on" for step in told) > len(told) / 2

    until(judged)


def test_a_weak_step_ends_its_request(bench: Bench) -> None:
    """Soon after it; the neighbours, in the same batch, notice nothing."""
    extra = bench.extra(do="stop", below=2.0)

    def ended() -> bool:
        answers = bench.ask([extra, extra, None, None])
        for answer, ids in zip(answers[2:], bench.ids[2:], strict=True):
            assert answer["output_ids"] == ids
        for answer, ids, expected in zip(answers[:2], bench.ids[:2], bench.steps[:2], strict=True):
            got, reason, report = answer["output_ids"], answer["meta_info"]["finish_reason"], midstep.report(answer)
            assert got == ids[: len(got)]
            if reason["type"] == "length":
                return False
            assert (reason["type"], reason["matched"]) == ("stop", "midstep:step_reward")
            steps = judging.told(report)
            assert steps[0].verdict == "stop"
            assert (steps[0].end, steps[0].score) == expected[0]
            assert steps[0].end < len(got) < LENGTH
            assert (report.stop.rule, report.stop.position, report.stop.value) == (
                "step_reward",
                len(got) - 1,
                steps[0].score,
            )
        return True

    until(ended)


def test_of_equal_samples_the_later_ones_end(bench: Bench) -> None:
    """Three greedy samples are one answer: the last of them ends first, then the second; the first is whole."""
    extra = bench.extra(do="weakest")

    def ended() -> bool:
        answers = bench.ask(extra, prompts=TEXTS[:1], n=3)
        assert answers[0]["output_ids"] == bench.ids[0]
        assert all(answer["output_ids"] == bench.ids[0][: len(answer["output_ids"])] for answer in answers)
        reasons = [answer["meta_info"]["finish_reason"].get("matched") for answer in answers]
        if reasons != [None, "midstep:step_reward", "midstep:step_reward"]:
            assert reasons[0] is None
            return False
        lengths = [len(answer["output_ids"]) for answer in answers]
        assert lengths[2] <= lengths[1] < lengths[0]
        assert judging.told(midstep.report(answers[2]))[0].verdict == "weakest"
        return True

    until(ended)


def test_rewards_that_fail_change_nothing(bench: Bench) -> None:
    """One that sleeps, one that blocks its loop, one that raises, one whose process dies: the same tokens, at once."""
    seen: dict[str, set[str]] = {reward: set() for reward in judging.FAILING}
    asked = list(judging.FAILING)

    def gone() -> bool:
        extras = [bench.extra(reward, do="stop", below=2.0) for reward in asked for _ in TEXTS]
        answers = bench.ask(extras, prompts=TEXTS * len(asked))
        for answer, (reward, text) in zip(answers, product(asked, range(len(TEXTS))), strict=True):
            expected = bench.steps[text]
            assert answer["output_ids"] == bench.ids[text]
            assert answer["meta_info"]["finish_reason"]["type"] == "length"
            steps = judging.told(midstep.report(answer))
            assert len(steps) == len(expected)
            assert {step.score for step in steps} == {None}
            seen[reward] |= {step.verdict for step in steps}
        asked[:] = [reward for reward in judging.FAILING[2:] if "gone" not in seen[reward]]
        return not asked

    until(gone)
    assert set().union(*seen.values()) == {"gone", "late"}


def test_beside_a_method_that_steers(bench: Bench) -> None:
    """The tokens are those of the method; the report is one."""
    (plain,) = bench.ask(midstep.request(min_p={"p": 0.1}), prompts=TEXTS[:1])
    both = midstep.request(min_p={"p": 0.1}, **judging.asked(bench.separator))
    (answer,) = bench.ask(both, prompts=TEXTS[:1])
    assert answer["output_ids"] == plain["output_ids"]
    report = midstep.report(answer)
    judging.right(report, judging.steps(bench.tokenizer, answer["output_ids"], bench.separator))
    assert sorted(report.methods) == ["min_p", "step_reward"]


def test_a_stream_that_a_verdict_ends(server: Any, models: Models) -> None:
    """Its last chunk has the reason and the report; a client that goes away leaves nothing."""
    params = {"temperature": 0.0, "max_new_tokens": LENGTH, "ignore_eos": True}

    def streamed(extra: Any, most: int = 10_000) -> list[Any]:
        body = {"text": TEXTS[0], "sampling_params": {**params, "custom_params": extra}, "stream": True}
        chunks = []
        with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=120) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    chunks.append(json.loads(line[6:]))
                if len(chunks) == most:
                    break
        return chunks

    def ids(chunks: Sequence[Any]) -> list[int]:
        return list(chunks[-1]["output_ids"])

    from transformers import AutoTokenizer

    plain = ids(streamed(None))
    separator = judging.separators(AutoTokenizer.from_pretrained(models.small), [plain])
    extra = midstep.request(**judging.asked(separator, do="stop", below=2.0))

    def ended() -> bool:
        chunks = streamed(extra)
        assert ids(chunks) == plain[: len(ids(chunks))]
        assert judging.told(midstep.report(chunks[-1]))
        return chunks[-1]["meta_info"]["finish_reason"].get("matched") == "midstep:step_reward"

    until(ended)
    streamed(extra, 3)
    assert not any(server.idle().values())


def test_an_engine_that_is_shut_down_leaves_no_judge(models: Models, tmp_path: Path, monkeypatch: Any) -> None:
    """The process of a configured reward begins with the engine, a named one's when it is named; both end with it."""
    settings = tmp_path / "midstep.toml"
    settings.write_text("[rewards.mine]\nuse = 'judged'\n")
    monkeypatch.setenv("MIDSTEP_CONFIG", str(settings))
    *_, counted = worked_out("-m", "engines.sglang.shut_down", models.small).splitlines()
    assert json.loads(counted) == [1, 2, 0]
