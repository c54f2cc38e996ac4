"""The scheduler's half of the channel: it ends a request at exactly the position that a method named, and says why."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from vllm.v1.request import RequestStatus

from midstep import reason
from midstep.record import Event
from midstep.report import kept

from .watching import Watching
from .wire import ANY_POSITION, EVENTS, SECONDS, key_and_wire, pack, unsteered

logger = logging.getLogger("vllm.midstep")


class Scheduler(Watching):
    """vLLM's scheduler, which also reads what the worker attached to its output; with async scheduling on or off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._mine: set[str] = set()
        self._events: dict[str, Event] = {}
        self._steered = False
        self._told: dict[str, Event] = {}
        self._seconds: list[float] = []

    def add_request(self, request: Any) -> None:
        """Take a request, and note whether it is midstep's."""
        if key_and_wire(request.sampling_params) is not None:
            self._mine.add(request.request_id)
        super().add_request(request)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Update the requests; hand each event whose token was kept to its request's output."""
        if not self._mine and not self.watches:
            return self._update_only({}, scheduler_output, model_runner_output)
        self._mine &= self.requests.keys()
        events = getattr(model_runner_output, EVENTS, None)
        self._events = {event.key: event for event in events or ()}
        self._steered = events is not None
        if self._steered and not self.watches:
            outputs = self._update_only(self._events, scheduler_output, model_runner_output)
        else:
            outputs = super().update_from_output(scheduler_output, model_runner_output)
        if self._told:
            told, self._told = self._told, {}
            for output in (o for group in outputs.values() for o in group.outputs):
                event = told.get(output.request_id)
                if event is not None:
                    output.kv_transfer_params = {**(output.kv_transfer_params or {}), EVENTS: [pack(event)]}
        self._tell_seconds(getattr(model_runner_output, SECONDS, None), outputs)
        return outputs

    def _update_only(self, events: Mapping[str, Event], scheduler_output: Any, model_runner_output: Any) -> Any:
        """Update the requests where only those with an event matter: no call of ours for the others."""
        if type(self)._update_request_with_output is not Scheduler._update_request_with_output:  # a user's scheduler
            return super().update_from_output(scheduler_output, model_runner_output)
        theirs, ours = super(Watching, self)._update_request_with_output, self._update_request_with_output

        def update(request: Any, *args: Any, **kwargs: Any) -> Any:
            return (ours if request.request_id in events else theirs)(request, *args, **kwargs)

        self._update_request_with_output = update if events else theirs  # type: ignore[method-assign]
        try:
            return super().update_from_output(scheduler_output, model_runner_output)
        finally:
            del self._update_request_with_output

    def _tell_seconds(self, seconds: float | None, outputs: Any) -> None:
        """Send midstep's time of this step with any output of it, or of the next that has one."""
        if seconds is not None:
            self._seconds.append(seconds)
        output = next((o for group in outputs.values() for o in group.outputs), None) if self._seconds else None
        if output is not None:
            told, self._seconds = [self.vllm_config.model_config.served_model_name, *self._seconds], []
            output.kv_transfer_params = {**(output.kv_transfer_params or {}), SECONDS: told}

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *args: Any, **kwargs: Any
    ) -> tuple[list[int], bool]:
        """Keep the tokens up to the one that a method ended the request with.

        Of what falls on the same token an end token, a grammar's end and (later) a stop string win; the length doesn't.
        """
        event, first = self._events.get(request.request_id), request.num_output_tokens
        if not self._steered and key_and_wire(request.sampling_params) is not None:
            event = unsteered(request.request_id, first)
        if event is None or not (event.position == ANY_POSITION or 0 <= event.position - first < len(new_token_ids)):
            # no event, or one of a token that was not kept: a partial prefill chunk, or one dropped in flight
            tokens, stopped = super()._update_request_with_output(request, new_token_ids, *args, **kwargs)
            return tokens, bool(stopped)
        why = reason(event)
        if why is not None and event.position != ANY_POSITION:
            del new_token_ids[kept(event) - first :]  # before the grammar sees them
        tokens, stopped = super()._update_request_with_output(request, new_token_ids, *args, **kwargs)
        self._told[request.request_id] = event
        if why is not None and (not stopped or request.status == RequestStatus.FINISHED_LENGTH_CAPPED):
            request.status = RequestStatus.FINISHED_STOPPED
            request.stop_reason = why
            stopped = True
        return tokens, bool(stopped)
