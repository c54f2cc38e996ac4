"""What travels between vLLM's processes, and under which names."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from midstep.record import Event
from midstep.watching.watched import Watched

# In SamplingParams.extra_args: a request's admission, from the API process to the worker.
ADMISSION = "_midstep"
# Of a step's ModelRunnerOutput: its events, from the worker to the scheduler.
# In EngineCoreOutput.kv_transfer_params: the same, from the scheduler to the API process; there it becomes the report.
EVENTS = "midstep"
# On the same way, beside the events: the seconds that midstep took of the step (from the scheduler on, of each step
# since the last output) and the name of the served model.
SECONDS = "_midstep_seconds"
# In SamplingParams.extra_args: what the scheduler has to know of a request whose steps are judged; no worker sees it.
# In EngineCoreOutput.kv_transfer_params: what has become of these steps since the last output.
WATCH = "_midstep_watch"
STEPS = "_midstep_steps"

INTERNAL = "internal"
ANY_POSITION = -1


def key_and_wire(params: Any) -> dict[str, Any] | None:
    """Return the admission that stamped SamplingParams carry, as `Admission.wire` made it, or None."""
    extra = params.extra_args if params is not None else None
    return extra.get(ADMISSION) if extra else None


def taken_watch(request: Any) -> Watched | None:
    """Take out of a Request what says that its steps are judged; None where they are not."""
    params = request.sampling_params
    if params is None or not params.extra_args or WATCH not in params.extra_args:
        return None
    rest = dict(params.extra_args)
    watch = Watched(**rest.pop(WATCH))
    request.sampling_params = copy.copy(params)
    request.sampling_params.extra_args = rest or None
    return watch


def pack(event: Event) -> list[Any]:
    """Return an event without its key as plain data."""
    return list(event[1:])


def unpack(key: str, data: Sequence[Any]) -> Event:
    """Read what `pack` made."""
    *fields, changed, trace = data
    return Event(*(key, *fields, tuple(changed), None if trace is None else tuple(trace)))


def failed(key: str) -> Event:
    """Return the event that ends a request because midstep itself failed, at whatever token comes next."""
    nan = float("nan")
    return Event(key, ANY_POSITION, -1, True, "", nan, nan, "exception", INTERNAL, (), None)


def unsteered(key: str, position: int) -> Event:
    """Return the event that ends a request whose token was drawn by a worker that midstep is not in."""
    nan = float("nan")
    return Event(key, position, -1, True, "", nan, nan, "unsteered", INTERNAL, (), None)
