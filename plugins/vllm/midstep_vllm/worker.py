"""The worker's half beside the processor: who is admitted, who has ended, and what each step has to tell."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, AsyncModelRunnerOutput

from midstep import Admission, Shadow
from midstep.record import Event

from .wire import EVENTS, SECONDS, key_and_wire

logger = logging.getLogger("vllm.midstep")


class Shift:
    """What midstep knows in one worker.

    `admissions` are the live requests by key, companions among them; `told` are the events of the step under way, each
    list still on its way from the device; `seconds` is what it took so far.
    """

    def __init__(self) -> None:
        self.admissions: dict[str, Admission | Shadow] = {}
        self.told: list[Callable[[], Iterable[Event]]] = []
        self.seconds = 0.0
        self._ended: list[str] = []

    def begin(self, scheduled: Any) -> None:
        """Learn from a SchedulerOutput who has ended and who is new."""
        for key in scheduled.finished_req_ids:
            if self.admissions.pop(key, None) is not None:
                self._ended.append(key)
        for new in scheduled.scheduled_new_reqs:
            wire = key_and_wire(new.sampling_params)
            if wire is not None and wire["key"] not in self.admissions:
                entry = Shadow(**wire) if "of" in wire else Admission.unwire(wire, new.prompt_token_ids or ())
                self.admissions[wire["key"]] = entry

    def idle(self) -> bool:
        """Say whether no request is midstep's, and none has just ended."""
        return not (self.admissions or self._ended)

    def ended(self) -> list[str]:
        """Return the keys of the requests that have ended since the last call."""
        keys, self._ended = self._ended, []
        return keys

    def attach(self, output: Any) -> Any:
        """Attach the step's events to its output, now or when the engine reads it."""
        if output is None or not self.told:
            return output
        told, self.told = self.told, []
        seconds, self.seconds = self.seconds, 0.0
        if isinstance(output, AsyncModelRunnerOutput):
            return Told(output, told, seconds)
        return _attached(output, told, seconds)


CURRENT: ContextVar[Shift] = ContextVar("midstep_vllm_shift")


class Told(AsyncModelRunnerOutput):  # type: ignore[misc]
    """An output that is still being copied, and the events that belong to it."""

    def __init__(self, inner: Any, told: list[Callable[[], Iterable[Event]]], seconds: float) -> None:
        self.inner = inner
        self.told = told
        self.seconds = seconds

    def get_output(self) -> Any:
        """Wait for the output and attach the events."""
        return _attached(self.inner.get_output(), self.told, self.seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def execute_model(original: Callable[..., Any], self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around WorkerWrapperBase.execute_model."""
    shift = _shift(self)
    try:
        shift.begin(scheduler_output)
    except Exception:
        logger.exception("midstep: a step's new requests could not be read; their rows will end")
    return _run(shift, original, self, scheduler_output, *args, **kwargs)


def sample_tokens(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around WorkerWrapperBase.sample_tokens."""
    return _run(_shift(self), original, self, *args, **kwargs)


def forward_sample_tokens(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Be WorkerWrapperBase.sample_tokens, which vLLM leaves to __getattr__."""
    return self.worker.sample_tokens(*args, **kwargs)


def _shift(wrapper: Any) -> Shift:
    shift: Shift | None = wrapper.__dict__.get("midstep")
    if shift is None:
        shift = wrapper.midstep = Shift()
    return shift


def _run(shift: Shift, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if shift.idle():
        return call(*args, **kwargs)
    token = CURRENT.set(shift)
    try:
        return shift.attach(call(*args, **kwargs))
    finally:
        CURRENT.reset(token)


def _attached(output: Any, told: Iterable[Callable[[], Iterable[Event]]], seconds: float) -> Any:
    """Attach events, or that there are none: an output without them is of a worker that midstep is not in."""
    try:
        events = [event for read in told for event in read()]
    except Exception:
        logger.exception("midstep: a step's record could not be read; what it had to tell is lost")
        events = []
    if output is None:
        return output
    if output is EMPTY_MODEL_RUNNER_OUTPUT:  # one object for everybody: never write to it
        output = copy.copy(output)
    setattr(output, EVENTS, events)
    setattr(output, SECONDS, seconds)
    return output
