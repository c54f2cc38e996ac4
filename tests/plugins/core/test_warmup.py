"""Warming up: every method is run once, and one that cannot be does not stop the engine."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import ConfigDict, Field
from toy import installed
from toy_methods import PROCESSORS, STOPS, Lift

import midstep
from midstep import warmup


class Particular(midstep.LogitsProcessor):
    """Wants a parameter that has no default, and a tokenizer."""

    name = "particular"

    class Params(midstep.Params):
        """What a request may set."""

        text: str = Field(examples=["<think>"], description="One that is encoded.")

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Encode the text."""
        return midstep.Prepared(ids={"text": tuple(model.tokenizer.encode(params.text, add_special_tokens=False))})

    def apply(self, logits: torch.Tensor, rows: midstep.Rows) -> torch.Tensor:
        """Change nothing."""
        return logits


class Stubborn(midstep.LogitsProcessor):
    """Fails whenever it is called."""

    name = "stubborn"

    def apply(self, logits: torch.Tensor, rows: midstep.Rows) -> torch.Tensor:
        """Fail."""
        raise RuntimeError("no")


def shapes(method: type[midstep.LogitsProcessor], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that gets the shape of the logits at each of the method's calls."""
    called: list[tuple[int, ...]] = []
    original = method.apply

    def apply(self: midstep.LogitsProcessor, logits: torch.Tensor, rows: midstep.Rows) -> torch.Tensor:
        called.append(tuple(logits.shape))
        return original(self, logits, rows)

    monkeypatch.setattr(method, "apply", apply)
    return called


def test_it_runs_every_method_and_survives_each(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called = shapes(Lift, monkeypatch)
    monkeypatch.setattr(warmup, "uses_kernels", lambda tensor: True)
    with installed(logits_processors=[*PROCESSORS, Stubborn], reward_hooks=STOPS), caplog.at_level(logging.INFO):
        warmup.warm_up(torch.device("cpu"), 30)
    assert called == [(1, 30), (4, 30)] * 4
    assert "kernels compiled in" in caplog.text


def test_it_fills_in_examples_and_a_tokenizer_and_calls_no_compiler_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else DeepConf and DRY, which have kernels, would be compiled while requests wait."""
    called = shapes(Particular, monkeypatch)
    monkeypatch.setattr(warmup, "uses_kernels", lambda tensor: True)
    with installed(logits_processors=[Particular]), caplog.at_level(logging.DEBUG):
        warmup.warm_up(torch.device("cpu"), 300)
    assert called == [(1, 300), (4, 300)] * 4
    assert warmup.PATIENT.call_seconds > 60


@pytest.mark.parametrize("name", ["proxy_tuning", "dexperts", "contrastive", "nudging"])
def test_methods_that_name_adapters_are_run_beside_prompts_instead(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No adapter is loaded yet when an engine starts; every companion is there, and nothing fails."""
    beside: list[int] = []
    run = midstep.Pipeline.run

    def counted(pipeline: midstep.Pipeline, logits: torch.Tensor, entries: Any, *rest: Any) -> midstep.record.Record:
        if entries[0].uses[0].name == name:
            beside.append(len(entries) // sum(isinstance(entry, midstep.Admission) for entry in entries))
        record = run(pipeline, logits, entries, *rest)
        assert not any(event.fault for event in record.events())
        return record

    monkeypatch.setattr(warmup, "uses_kernels", lambda tensor: True)
    monkeypatch.setattr(midstep.Pipeline, "run", counted)
    with caplog.at_level(logging.DEBUG):
        warmup.warm_up(torch.device("cpu"), 300)
    assert beside == [3 if name == "proxy_tuning" else 2] * 16
    assert f"{name} is not warmed up" not in caplog.text


def test_it_does_nothing_where_no_kernel_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        warmup.warm_up(torch.device("cpu"), 30)
    assert not caplog.records


def test_a_method_with_companions_runs_beside_them_and_on_rows_of_either_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its example says where it has no defaults."""
    seen: list[Any] = []

    class Beside(midstep.LogitsProcessor):
        """Has a companion of its own choice."""

        name = "beside"

        class Params(midstep.Params):
            """What a request may set."""

            model_config = ConfigDict(json_schema_extra={"examples": [{"other": [4]}]})

            other: list[int] = Field([], description="The other prompt.")

        @classmethod
        def prepare(cls, params: Any, prompt: object, model: midstep.Model) -> midstep.Prepared:
            """Want a prompt."""
            if not params.other:
                raise ValueError("no")
            return midstep.Prepared(companions={"other": midstep.Companion(tuple(params.other))})

        def apply(self, logits: torch.Tensor, rows: midstep.Rows) -> torch.Tensor:
            """Look at the companion."""
            seen.append((tuple(rows.companions["other"].shape), len(rows.position)))
            return logits

    run = midstep.Pipeline.run

    def typed(pipeline: midstep.Pipeline, logits: torch.Tensor, entries: Any, *rest: Any) -> midstep.record.Record:
        if entries[0].uses[0].name == "beside":
            seen.append(logits.dtype)
        return run(pipeline, logits, entries, *rest)

    monkeypatch.setattr(warmup, "uses_kernels", lambda tensor: True)
    monkeypatch.setattr(midstep.Pipeline, "run", typed)
    with installed(logits_processors=[Beside]):
        warmup.warm_up(torch.device("cpu"), 30)
    one, four = ((1, 30), 1), ((4, 30), 4)
    both = [[torch.float32, seen_at, torch.bfloat16, seen_at] for seen_at in (one, four)]
    assert seen == [*both[0], *both[1]] * 4  # traced and not, with cuts of its own and without
