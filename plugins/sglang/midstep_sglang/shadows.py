"""Makes a request's companions in the scheduler process: requests under other prompts that no client knows.

A companion is made as SGLang makes any request, but it never queues: it waits with its main request, which alone stands
in SGLang's queue, is admitted beside it (`gang`), follows it in every batch, and ends in the step in which it ends.
"""

from __future__ import annotations

import copy
import json
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT

import midstep
from midstep.methods import BASE
from midstep.watching.watcher import Watcher

from .entry import BESIDE, ENTRY
from .fitting import fit
from .steered import ON_REQUEST, Follower, Steered, of

HIDDEN = "_midstep_hidden"  # the attribute of a Req that no client knows
GROUP = "_midstep_group"  # the attribute of a Req that has companions
ON_SCHEDULER = "_midstep_gang"

NOT_ASKED: dict[str, Any] = {
    "input_text": "",
    "input_embeds": None,
    "mm_inputs": None,
    "token_type_ids": None,
    "positional_embed_overrides": None,
    "return_logprob": False,
    "logprob_start_len": -1,
    "top_logprobs_num": 0,
    "token_ids_logprob": None,
    "stream": False,
    "return_hidden_states": False,
    "return_routed_experts": False,
    "return_indexer_topk": False,
    "require_reasoning": False,
}
NO_END: dict[str, Any] = {
    "stop_token_ids": None,
    "stop_strs": [],
    "stop_regex_strs": [],
    "ignore_eos": True,
    "min_new_tokens": 0,
    "json_schema": None,
    "regex": None,
    "ebnf": None,
    "structural_tag": None,
}


@dataclass(eq=False)
class Group:
    """The companions of one request.

    Args:
        shadows: their Reqs, in the order of their rows after the main request's.
        template: what SGLang received, as a companion has it.
        readers: the Reqs that read the prompts into the prefix cache, where they do not fit into one prefill.
        attempts: how often there were readers.
    """

    shadows: tuple[Any, ...]
    template: Any
    readers: list[Any] = field(default_factory=list)
    attempts: int = 0


@dataclass(eq=False)
class Gang:
    """What one scheduler keeps.

    Args:
        hidden: its requests that no client knows.
        steered: those that use midstep, as long as they live; a step without any looks at no request.
        next: those of them that wait for the next prefill.
        adder: the class that chooses what is prefilled.
        filling: the one that chooses now.
        closed: the one that lets nobody pass a group whose adapters have no place yet.
        watcher: has the steps judged of the requests that ask for it.
    """

    hidden: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    steered: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    next: list[Any] = field(default_factory=list)
    adder: type[Any] | None = None
    filling: Any = None
    closed: Any = None
    watcher: Watcher | None = None


@dataclass(eq=False)
class Beside:
    """A request's companions on their way to the queue."""

    shadows: list[tuple[midstep.Shadow, Any]]
    template: Any


@dataclass(eq=False)
class Catch:
    """Takes the Req that SGLang makes, in place of the queue."""

    request: Any = None


def gang_of(scheduler: Any) -> Gang:
    """Return what midstep keeps on a scheduler."""
    found: Gang | None = vars(scheduler).get(ON_SCHEDULER)
    if found is None:
        found = vars(scheduler)[ON_SCHEDULER] = Gang()
    return found


def group_of(request: Any) -> Group | None:
    """Return the companions of `request`, a Req."""
    found: Group | None = request.__dict__.get(GROUP)
    return found


def main_of(request: Any) -> Steered | None:
    """Return the request to whose group `request` belongs: its own, or that of which it is a companion."""
    row: Steered | Follower | None = request.__dict__.get(ON_REQUEST)
    return None if row is None else row.main


def split(original: Any, scheduler: Any, received: Any, *args: Any, **kwargs: Any) -> Any:
    """AROUND Scheduler.handle_generate_request: make a request's companions before it."""
    custom = received.sampling_params.custom_params
    worn = custom.get(BESIDE) if isinstance(custom, dict) else None
    if isinstance(worn, dict):
        try:
            wanted = list(midstep.shadows(midstep.Admission.unwire(json.loads(custom[ENTRY]))))
        except Exception:  # no entry of ours: `intake.take` refuses it
            del custom[BESIDE]
        else:
            template = _template(received)
            made = [
                (one, make(scheduler, template, f"#{one.name}", other.prompt, _wears(template, other, worn)))
                for one, other in wanted
            ]
            custom[BESIDE] = Beside(made, template)
    return original(scheduler, received, *args, **kwargs)


def _template(received: Any) -> Any:
    """Return what a companion shares with its main request, `received`: all but what it asks for and what ends it.

    The logit bias is the same in both, so that a contrast whose weights add up to 1 has it once.
    """
    template, params = copy.copy(received), copy.copy(received.sampling_params)
    for target, values in ((template, NOT_ASKED), (params, NO_END)):
        for name, value in values.items():
            setattr(target, name, value)
    params.custom_params = None
    template.sampling_params = params
    return template


def _wears(template: Any, companion: midstep.Companion, worn: dict[str, str]) -> str | None:
    """Return the id of the adapter that a companion wears, or None; `worn` are those that are named, by name."""
    if companion.adapter is not None:
        return worn[companion.adapter]
    return None if companion.wears == BASE else template.lora_id


def make(scheduler: Any, template: Any, suffix: str, prompt: Sequence[int], adapter: str | None, **params: Any) -> Any:
    """Let SGLang make a request of a template, and return its Req, which is in no queue.

    Args:
        suffix: of its id, which begins as the main request's: SGLang aborts all that begin so.
        adapter: the id of what it wears.
        params: sampling parameters that differ from the template's.
    """
    received, catch = copy.copy(template), Catch()
    received.rid = f"{template.rid}{suffix}"
    received.input_ids = array("q", prompt)
    received.lora_id = adapter
    received.time_stats = copy.deepcopy(template.time_stats)
    received.sampling_params = copy.copy(template.sampling_params)
    for name, value in {**params, "custom_params": {BESIDE: catch}}.items():
        setattr(received.sampling_params, name, value)
    scheduler.handle_generate_request(received)
    catch.request.sampling_params.custom_params = None
    setattr(catch.request, HIDDEN, True)
    gang_of(scheduler).hidden.add(catch.request)
    return catch.request


def enqueue(original: Any, scheduler: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """AROUND Scheduler._add_request_to_queue: a companion waits with its main request, not in the queue."""
    custom = request.sampling_params.custom_params
    beside = custom.get(BESIDE) if isinstance(custom, dict) else None
    if isinstance(beside, Catch):
        beside.request = request
        return None
    if isinstance(request.__dict__.get(ON_REQUEST), Follower):  # retracted or preempted with its main request
        return None
    if not isinstance(beside, Beside):
        return original(scheduler, request, *args, **kwargs)
    del custom[BESIDE]
    shadows = [shadow for _, shadow in beside.shadows]
    if request.to_finish is None:
        problem = fit(scheduler, [request, *shadows])
        if problem is not None:
            request.set_finish_with_abort(f"midstep: {problem}")
    result = original(scheduler, request, *args, **kwargs)
    steered = of(request)
    if steered is not None:
        for (one, _), shadow in zip(beside.shadows, shadows, strict=True):
            _follow(shadow, request, Follower(one, steered, len(shadow.origin_input_ids)))
        setattr(request, GROUP, Group(tuple(shadows), beside.template))
    return result


def _follow(shadow: Any, request: Any, follower: Follower) -> None:
    """Let a companion's Req run and end as its main request's, which stands before it in every batch."""
    setattr(shadow, ON_REQUEST, follower)
    shadow.priority = request.priority
    shadow.time_stats.set_wait_queue_entry_time()
    main, own = weakref.ref(request), weakref.ref(shadow)  # a request must not keep itself alive

    def update_finish_state(*args: Any, **kwargs: Any) -> None:
        shadow, request = own(), main()
        if shadow is None:
            return
        type(shadow).update_finish_state(shadow, *args, **kwargs)
        if shadow.finished_reason is None and (request is None or request.finished()):
            shadow.finished_reason = FINISH_ABORT("its main request has ended")
            shadow.finished_len = len(shadow.output_ids)

    shadow.update_finish_state = update_finish_state


def announce(original: Any, scheduler: Any, abort: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """AROUND Scheduler.send_abort_output: nobody hears of a companion."""
    return None if HIDDEN in request.__dict__ else original(scheduler, abort, request, *args, **kwargs)
