"""From the sampler to the request's end: what a call told, applied when SGLang processes the same call's tokens.

A call's record rides on SGLang's own auxiliary output, so it belongs to the right tokens with overlap and without.
Before SGLang commits them, `decide` notes at which length a request ends; when it looks for stops, `finish` ends it
there; after it has committed, `consume` is told which tokens were kept; and `Streamer` sends the report with the last.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sglang.srt.environ import envs
from sglang.srt.managers.schedule_batch import FINISH_LENGTH, FINISH_MATCHED_STR
from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

from midstep import Ledger, configuration, metrics
from midstep.record import Event, Record

from . import watching
from .entry import REPORT
from .shadows import Gang, gang_of
from .steered import Steered, of


class Told:
    """What one call has to tell: the record of the rows that were steered, or nothing where the call failed.

    It is both of SGLang's protocols, DeviceAuxiliaryOutput and HostAuxiliaryOutput: the record copies itself.
    `seconds` is the host's time for the call.
    """

    def __init__(self, rows: Sequence[Steered], record: Record | None, seconds: float) -> None:
        self.keys = frozenset(one.admission.key for one in rows)
        self.record = record
        self.seconds = seconds

    @cached_property
    def events(self) -> Mapping[str, Event]:
        """Return the events by key; the first look waits for their copy, which is as old as the tokens' own."""
        return {event.key: event for event in self.record.events()} if self.record is not None else {}

    def copy_to_host(self, copy_tensor: Callable[[Any], Any]) -> Told:
        """Return what the scheduler keeps until it processes the call's tokens."""
        return self

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Add to the reports what happened at the tokens that were kept."""
        for request, commit in zip(batch.reqs, commits, strict=True):
            steered = of(request)
            if steered is None or commit is None:
                continue
            event = self.events.get(steered.admission.key)
            if event is not None and 0 <= event.position - commit.output_index < len(commit.token_ids):
                steered.ledger.add(event)


def decide(scheduler: Any, batch: Any, result: Any, *args: Any, **kwargs: Any) -> None:
    """BEFORE Scheduler.process_batch_result: learn which requests end with the tokens about to be committed."""
    told = _told(getattr(result, "auxiliary_host_output", None))
    if told is not None:
        model = _shown_model(scheduler)
        if model is not None:
            metrics.observe(told.seconds, model)
    elif not gang_of(scheduler).steered:
        return
    for request in batch.reqs:
        steered = of(request)
        if steered is None or not _commits(request):
            continue
        position = len(request.output_ids)
        event = told.events.get(steered.admission.key) if told else None
        if told is None or steered.admission.key not in told.keys:
            steered.fail(position, "unsteered")
        elif told.record is None:
            steered.fail(position, "exception")
        elif event is not None and event.position != position:
            steered.fail(position, "position")
        elif event is not None:
            steered.decide(event)


def _shown_model(scheduler: Any) -> str | None:
    """Return the model's name at /metrics where this process counts for it; of ranks that do the same, one does."""
    reporter: Any = getattr(scheduler, "metrics_reporter", None)
    if not getattr(reporter, "current_scheduler_metrics_enabled", False):
        return None
    labels: Mapping[str, Any] = getattr(reporter.metrics_collector, "labels", {})
    return labels.get("model_name")


def _told(output: Any) -> Told | None:
    parts = getattr(output, "outputs", (output,))
    return next((part for part in parts if isinstance(part, Told)), None)


def _commits(request: Any) -> bool:
    """Say whether SGLang will keep the token of this call: not that of a middle chunk, nor one that ran ahead."""
    return not request.finished() and not request.is_retracted and request.inflight_middle_chunks <= 0


def watch(request: Any) -> None:
    """Look at a request whenever SGLang has looked for its end; only at those with midstep, so no other pays for it."""
    whose = weakref.ref(request)  # the request must not keep itself alive

    def update_finish_state(*args: Any, **kwargs: Any) -> None:
        request = whose()
        if request is not None:
            type(request).update_finish_state(request, *args, **kwargs)
            finish(request)
            watching.look(request)

    request.update_finish_state = update_finish_state


def finish(request: Any) -> None:
    """End a request at the very token at which a method ended it.

    Of what falls on the same token an abort, an end token, a grammar's end and a stop string win; the length does not.
    """
    steered = of(request)
    if steered is None or steered.end is None or len(request.output_ids) < steered.end:
        return
    if request.finished_reason is not None and not isinstance(request.finished_reason, FINISH_LENGTH):
        return
    if request.finished_len is not None and request.finished_len < steered.end:
        return
    request.finished_reason = FINISH_MATCHED_STR(matched=steered.reason)
    request.finished_len = steered.end


class Streamer(SchedulerOutputStreamer):  # type: ignore[misc]
    """SGLang's streamer, with the report of each request beside its last token, and without companions."""

    has_additional_customized_info = True
    gang: Gang

    def stream_output(self, reqs: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        """Send what there is of `reqs` to the detokenizer; nobody hears of a companion."""
        hidden = self.gang.hidden
        super().stream_output([r for r in reqs if r not in hidden] if hidden else reqs, *args, **kwargs)

    def build_additional_customized_info(self, reqs: Sequence[Any]) -> dict[str, list[Any]]:
        """Return the reports of the requests that end here, each in a list of its own."""
        if not self.gang.steered:
            return {}
        ledgers = [_ledger(request) if request.finished() else None for request in reqs]
        if not any(ledgers):
            return {}
        return {REPORT: [_report(one, r) if one is not None else [] for one, r in zip(ledgers, reqs, strict=True)]}


def _ledger(request: Any) -> Ledger | None:
    one = of(request) or watching.judged(request)
    return None if one is None else one.ledger


def _report(ledger: Ledger, request: Any) -> list[dict[str, Any]]:
    kept = len(request.output_ids) if request.finished_len is None else request.finished_len
    return [ledger.report(kept).model_dump(mode="json")]


def streamer(base: Any, scheduler: Any) -> Any:
    """AFTER Scheduler.get_output_streamer_class: add the report, for which SGLang's server in Rust has no room."""
    if base is not SchedulerOutputStreamer or envs.SGLANG_RUST_SERVER.get():
        return base
    if configuration.current().rewards:  # their processes take seconds to begin
        watching.watcher_of(scheduler)
    return type(Streamer.__name__, (Streamer,), {"gang": gang_of(scheduler)})
