"""The scheduler's half without an engine: slots are freed, and what it never admitted is refused."""

from __future__ import annotations

import gc
import json
import weakref
from array import array
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import midstep
from midstep_sglang import intake, steered
from midstep_sglang.entry import ENTRY
from midstep_sglang.sampler import Steering

VOCABULARY = 32


class Request:
    """As much of SGLang's Req as midstep looks at."""

    def __init__(self, key: str, custom: dict[str, Any] | None = None) -> None:
        asked = midstep.parse(midstep.request(deepconf={"threshold": 0.0, "window": 2}, min_p={}))
        assert asked is not None
        admission = midstep.admit(asked, [1, 2], midstep.Sampling(), midstep.Model(VOCABULARY), seed=1)
        assert admission is not None
        entry = {ENTRY: json.dumps(admission.stamped(key).wire())} if custom is None else custom
        self.sampling_params = SimpleNamespace(custom_params=entry, top_k=1)
        self.origin_input_ids = array("q", [1, 2])
        self.custom_logit_processor: str | None = None
        self.to_finish: str | None = None
        self.ended = False

    def finished(self) -> bool:
        """Say whether the engine is done with it."""
        return self.ended

    def set_finish_with_abort(self, message: str) -> None:
        """Take an end."""
        self.to_finish = message


SCHEDULER = SimpleNamespace(
    model_config=SimpleNamespace(vocab_size=VOCABULARY), max_req_len=100, max_running_requests=8
)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_requests_that_end_leave_nothing(count: int) -> None:
    """Slots and what is kept of requests stay as many as are alive, however the requests ended."""
    steering, alive = Steering(), []
    for i in range(count):
        request = Request(f"r{i}")
        intake.take(SCHEDULER, request)
        alive.append(request)
        if len(alive) > 4:
            gone = alive.pop(0)
            gone.ended = i % 2 == 0  # it finished, or it was aborted in the queue and only its object died
            del gone
        rows = steered.Rows(tuple(map(steered.of, alive)), (True,) * len(alive))
        told = steering.run(torch.randn(len(alive), VOCABULARY), rows, torch.full((len(alive),), 1))
        assert told.record is not None
    gc.collect()
    assert steering._pipeline is not None
    assert len(steering._pipeline.slots) <= 6
    assert len(steering._live) <= 6


def test_a_request_does_not_outlive_its_engine() -> None:
    """midstep keeps no request alive."""
    request = Request("r")
    intake.take(SCHEDULER, request)
    rows = steered.Rows((steered.of(request),), (True,))
    steering = Steering()
    steering.run(torch.randn(1, VOCABULARY), rows, torch.tensor([1]))
    watch = weakref.ref(request)
    del request
    assert watch() is None


def test_a_broken_pipeline_ends_its_rows() -> None:
    """An exception of midstep's own is told, not raised."""
    request = Request("r")
    intake.take(SCHEDULER, request)
    rows = steered.Rows((steered.of(request),), (True,))
    told = Steering().run(torch.randn(1, VOCABULARY), rows, torch.tensor([1, 2, 3])[None])
    assert told.record is None


@pytest.mark.parametrize(
    ("custom", "code", "says"),
    [
        ({"midstep": "{}"}, None, "checks are not installed"),
        ({"midstep.min_p.p": 1}, None, "checks are not installed"),
        ({ENTRY: "{}"}, None, "checks are not installed"),
        ({ENTRY: [1]}, None, "checks are not installed"),
        ({}, "garbage", "it is code"),
    ],
)
def test_what_was_not_admitted_is_refused(custom: dict[str, Any], code: str | None, says: str) -> None:
    """The scheduler ends such a request with a reason instead of dying of it."""
    request = Request("r", custom)
    request.custom_logit_processor = code
    intake.take(SCHEDULER, request)
    assert says in str(request.to_finish)
    assert request.custom_logit_processor is None
    assert steered.of(request) is None


def test_nothing_is_unpickled() -> None:
    """Whatever the text is, the processor made of it does nothing."""
    logits = torch.randn(2, 3)
    assert intake.unpickle("garbage")()(logits) is logits
