"""Warming up: every method is run once, and one that cannot be does not stop the engine."""

import logging

import pytest
import torch
from toy import installed
from toy_methods import PROCESSORS, STOPS, Lift

import midstep
from midstep import warmup


class Stubborn(midstep.LogitsProcessor):
    """Fails whenever it is called."""

    name = "stubborn"

    def apply(self, logits: torch.Tensor, rows: midstep.Rows) -> torch.Tensor:
        """Fail."""
        raise RuntimeError("no")


def test_it_runs_every_method_and_survives_each(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called = []
    original = Lift.apply

    def apply(self: Lift, logits: torch.Tensor, rows: midstep.Rows) -> torch.Tensor:
        called.append(tuple(logits.shape))
        return original(self, logits, rows)

    monkeypatch.setattr(Lift, "apply", apply)
    monkeypatch.setattr(warmup, "uses_kernels", lambda tensor: True)
    with installed(logits_processors=[*PROCESSORS, Stubborn], reward_hooks=STOPS), caplog.at_level(logging.INFO):
        warmup.warm_up(torch.device("cpu"), 30)
    assert called == [(1, 30), (1, 30)]
    assert "kernels compiled in" in caplog.text


def test_it_does_nothing_where_no_kernel_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        warmup.warm_up(torch.device("cpu"), 30)
    assert not caplog.records
