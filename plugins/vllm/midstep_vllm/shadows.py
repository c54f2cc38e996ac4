"""Makes the companions of one request, in the engine core: requests of its own under other prompts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vllm.v1.request import Request

from midstep import Admission, Companion, shadows
from midstep.companions import for_workers
from midstep.methods import BASE

from . import adapters
from .wire import ADMISSION


def split(request: Any, wire: Mapping[str, Any]) -> list[Any]:
    """Return the companions of a Request, and leave its workers no more of them than their names.

    Args:
        wire: the request's admission, with the adapters that its companions wear.
    """
    worn = wire.get(adapters.ADAPTERS, {})
    wire = {key: value for key, value in wire.items() if key != adapters.ADAPTERS}
    own = request.sampling_params
    theirs = [
        Request(
            request_id=f"{request.request_id}#{shadow.name}",
            prompt_token_ids=list(companion.prompt),
            sampling_params=_params(own, asdict(shadow)),
            pooling_params=None,
            client_index=request.client_index,
            arrival_time=request.arrival_time,
            lora_request=_worn(request, companion, worn),
            cache_salt=request.cache_salt,
            priority=request.priority,
            block_hasher=request._block_hasher,
        )
        for shadow, companion in shadows(Admission.unwire(wire))
    ]
    request.sampling_params = copy.copy(own)
    request.sampling_params.extra_args = {**own.extra_args, ADMISSION: for_workers(wire)}
    return theirs


def _worn(request: Any, companion: Companion, worn: Mapping[str, Any]) -> Any:
    """Return the LoRARequest of a companion, or None."""
    if companion.adapter is not None:
        return adapters.read(worn[companion.adapter])
    return None if companion.wears == BASE else request.lora_request


def _params(own: Any, shadow: dict[str, Any]) -> Any:
    """Return the SamplingParams of a companion: the bias of its main request, which must be in every row of a sum
    alike, and nothing that masks tokens or ends an answer, which is the main row's alone.
    """
    params = copy.copy(own)
    params.logprobs = params.prompt_logprobs = params.logprob_token_ids = None
    params.min_tokens, params.ignore_eos = 0, True
    params.stop, params.stop_token_ids = [], []
    params.bad_words = params.allowed_token_ids = params.structured_outputs = None
    params._bad_words_token_ids = params.repetition_detection = None
    params.extra_args = {ADMISSION: shadow}
    return params
