"""Takes requests in, in the scheduler process: reads what the tokenizer process admitted, refuses what it never saw."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor

import midstep

from . import channel, watching
from .entry import ENTRY, names_midstep
from .refusals import PICKLE, UNSEEN
from .shadows import gang_of
from .steered import ON_REQUEST, Steered, of

logger = logging.getLogger("midstep")


def take(scheduler: Any, request: Any, *args: Any, **kwargs: Any) -> None:
    """BEFORE Scheduler._add_request_to_queue: make a request Steered, or give it an end that names the reason.

    A retracted or preempted request passes here again and keeps what it has.
    """
    if request.finished() or request.to_finish is not None:
        return
    if of(request) is not None or watching.judged(request) is not None:
        return
    problem = _take(scheduler, request)
    if problem is not None:
        request.custom_logit_processor = None
        request.set_finish_with_abort(problem)


def _take(scheduler: Any, request: Any) -> str | None:
    if request.custom_logit_processor is not None:
        return PICKLE
    custom = request.sampling_params.custom_params
    if not isinstance(custom, Mapping):
        return None
    entry = custom.get(ENTRY)
    if entry is None:
        return UNSEEN if names_midstep(custom) else None
    size = scheduler.model_config.vocab_size
    try:  # an image's placeholders are no tokens
        prompt = [token for token in request.origin_input_ids if 0 <= token < size]
        admission = midstep.Admission.unwire(json.loads(entry), prompt)
    except Exception:
        logger.exception("a request's %s could not be read", ENTRY)
        return UNSEEN
    if not admission.drawn:
        watching.begin(scheduler, request, midstep.Ledger(admission))
        _known(scheduler, request)
        return None
    steered = Steered(
        admission,
        request=weakref.ref(request),
        prompt_length=len(request.origin_input_ids),
        max_length=scheduler.max_req_len + 1,
        max_requests=scheduler.max_running_requests,
    )
    setattr(request, ON_REQUEST, steered)
    watching.begin(scheduler, request, steered.ledger)
    _known(scheduler, request)
    return None


def _known(scheduler: Any, request: Any) -> None:
    gang_of(scheduler).steered.add(request)
    channel.watch(request)


class Refused(CustomLogitProcessor):  # type: ignore[misc]
    """Stands for any processor that reaches a batch none the less: it leaves the logits alone."""

    def __call__(self, logits: torch.Tensor, custom_param_list: list[dict[str, Any]] | None = None) -> torch.Tensor:
        """Return `logits`."""
        return logits


def unpickle(text: str) -> type[Refused]:
    """REPLACE _cache_from_str: nothing is unpickled, and nothing is raised, which would end the scheduler."""
    return Refused
