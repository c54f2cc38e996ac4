"""What midstep tells the client about its request: one JSON in every engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from .admission import Admission
from .companions import spent
from .record import Event
from .watching.watched import NAME, News


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


class Step(_Part):
    """One step of the answer, as its reward judged it.

    Args:
        end: how many tokens the answer has where the step ends.
        score: the reward's; None where there is none, and `fault` says why.
        verdict: "go on"; "stop" or "weakest", which ended the answer, or came when it had just ended by itself; "gone":
            the reward gave no score; "late": it had not yet when the answer ended.
        seconds: from the step's end to the verdict.
    """

    end: int
    score: float | None
    verdict: str
    seconds: float | None
    fault: str | None = None


class TraceToken(_Part):
    """One token: the chosen one, the likeliest unsteered, both probabilities of the chosen one, and who changed it."""

    position: int
    token: int
    best: int
    probability: float
    unsteered: float
    changed: list[str]


class Report(_Part):
    """The whole report. `version` goes up when a field changes its meaning; no `seed`: the engine drew the tokens."""

    version: int = 1
    sample: int
    seed: int | None
    methods: dict[str, MethodReport]
    stop: Stop | None = None
    faults: list[Fault] = []
    tokens: Tokens = Tokens()
    steps: list[Step] | None = None
    trace: list[TraceToken] | None = None


class Ledger:
    """Collects the events of one request whose tokens the engine kept."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._events: dict[int, Event] = {}  # by position: a token that is drawn again replaces the first
        self._steps: dict[int, News] = {}

    def add(self, event: Event) -> None:
        """Note what happened at one position."""
        self._events[event.position] = event

    def judged(self, news: Iterable[News]) -> None:
        """Note what has become of the answer's steps."""
        self._steps.update((one.number, one) for one in news)

    def report(self, generated: int) -> Report:
        """Return the report of a request that kept `generated` tokens."""
        events = [self._events[p] for p in sorted(self._events) if p < generated or kept(self._events[p]) == generated]
        changed = Counter(name for event in events for name in event.changed)
        faults: dict[tuple[str, str], list[int]] = {}
        for event in events:
            if event.fault:
                faults.setdefault((event.method, event.fault), []).append(event.position)
        ended = next((event for event in events if event.end and event.rule and not event.fault), None)
        watch = self.admission.watch
        used = {use.name: use.params for use in self.admission.uses} | ({} if watch is None else {NAME: watch.params})
        steps = [self._steps[number] for number in sorted(self._steps)]
        judged = next((step for step in steps if step.ended), None)
        reads = sum(step.tokens for step in steps)
        return Report(
            sample=self.admission.sample,
            seed=(self.admission.seed or 0) & ((1 << 64) - 1) if self.admission.drawn else None,
            methods={
                name: MethodReport(params=dict(params), tokens=generated, changed=changed[name])
                for name, params in used.items()
            },
            stop=_stop(ended) if ended else judged and _judged(judged, used[NAME], generated),
            faults=[Fault(method=m, fault=f, position=at[0], count=len(at)) for (m, f), at in faults.items()],
            tokens=Tokens(companion=spent(self.admission, generated), reward=reads),
            steps=None if watch is None else [_step(step) for step in steps if step.end <= generated],
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


def _judged(news: News, params: Mapping[str, Any], generated: int) -> Stop:
    return Stop(rule=NAME, position=generated - 1, value=news.value, threshold=params.get("below"))


def _step(news: News) -> Step:
    return Step(
        end=news.end,
        score=news.score,
        verdict=news.verdict or "late",
        seconds=news.seconds,
        fault=news.fault or None,
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
