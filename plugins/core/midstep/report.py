"""What midstep tells the client about its request: one JSON in every engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from .admission import Admission
from .companions import spent
from .record import Event


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodReport(_Part):
    """One method: its effective parameters, how many tokens it saw, and how many of them it changed."""

    params: dict[str, Any]
    tokens: int
    changed: int


class Stop(_Part):
    """Why a method ended the request: the rule, the position of the last token, and what was compared."""

    rule: str
    position: int
    value: float | None
    threshold: float | None


class Fault(_Part):
    """A method that failed: what it did, where first, and at how many positions."""

    method: str
    fault: str
    position: int
    count: int


class Tokens(_Part):
    """Tokens spent beside the answer's own."""

    companion: int = 0
    probe: int = 0
    reward: int = 0
    discarded: int = 0


class TraceToken(_Part):
    """One token: the chosen one, the likeliest unsteered, both probabilities of the chosen one, and who changed it."""

    position: int
    token: int
    best: int
    probability: float
    unsteered: float
    changed: list[str]


class Report(_Part):
    """The whole report. `version` goes up when a field changes its meaning."""

    version: int = 1
    sample: int
    seed: int
    methods: dict[str, MethodReport]
    stop: Stop | None = None
    faults: list[Fault] = []
    tokens: Tokens = Tokens()
    trace: list[TraceToken] | None = None


class Ledger:
    """Collects the events of one request whose tokens the engine kept."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._events: dict[int, Event] = {}  # by position: a token that is drawn again replaces the first

    def add(self, event: Event) -> None:
        """Note what happened at one position."""
        self._events[event.position] = event

    def report(self, generated: int) -> Report:
        """Return the report of a request that kept `generated` tokens."""
        events = [self._events[p] for p in sorted(self._events) if p < generated or kept(self._events[p]) == generated]
        changed = Counter(name for event in events for name in event.changed)
        faults: dict[tuple[str, str], list[int]] = {}
        for event in events:
            if event.fault:
                faults.setdefault((event.method, event.fault), []).append(event.position)
        ended = next((event for event in events if event.end and event.rule and not event.fault), None)
        return Report(
            sample=self.admission.sample,
            seed=(self.admission.seed or 0) & ((1 << 64) - 1),
            methods={
                use.name: MethodReport(params=dict(use.params), tokens=generated, changed=changed[use.name])
                for use in self.admission.uses
            },
            stop=ended and _stop(ended),
            faults=[Fault(method=m, fault=f, position=at[0], count=len(at)) for (m, f), at in faults.items()],
            tokens=Tokens(companion=spent(self.admission, generated)),
            trace=[_traced(event) for event in events if event.trace] if self.admission.trace else None,
        )


def reason(event: Event) -> str | None:
    """Return why `event` ends its request, as the engine's stop reason; None where it does not."""
    if not event.end:
        return None
    return f"midstep:{event.method}:{event.fault}" if event.fault else f"midstep:{event.rule}"


def kept(event: Event) -> int:
    """Return how many tokens an answer has that `event` ends: a token that was drawn unguided is none of them."""
    return event.position if event.fault == "companion" else event.position + 1


def report(response: Any, sample: int = 0) -> Report | None:
    """Read midstep's report from what a client got: vLLM's or SGLang's object, an OpenAI response, or its JSON.

    Args:
        sample: which of n > 1 answers.

    Returns:
        The report, or None where the response carries none.
    """
    if isinstance(response, Sequence) and not isinstance(response, str):
        return report(response[sample]) if sample < len(response) else None
    by_sample = _field(_field(response, "kv_transfer_params"), "midstep")
    if by_sample is not None:
        found = by_sample.get(str(sample))
        return None if found is None else Report.model_validate(found)
    found = _field(_field(response, "meta_info"), "midstep")
    if found is None:
        choices = _field(response, "choices")
        found = _field(_field(choices[sample], "meta_info"), "midstep") if choices and sample < len(choices) else None
    return (
        None
        if found is None
        else Report.model_validate_json(found)
        if isinstance(found, str)
        else Report.model_validate(found)
    )


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _stop(event: Event) -> Stop:
    return Stop(
        rule=event.rule, position=event.position, value=_finite(event.value), threshold=_finite(event.threshold)
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _traced(event: Event) -> TraceToken:
    assert event.trace is not None
    best, probability, unsteered = event.trace
    return TraceToken(
        position=event.position,
        token=event.token,
        best=best,
        probability=probability,
        unsteered=unsteered,
        changed=list(event.changed),
    )
