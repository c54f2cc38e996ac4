"""Why a request and its companions can never run together on this server, and how long their answer may get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SPARE = 3  # tokens per request that SGLang keeps free beside a page
# What is read of a Scheduler; that it is there is checked before a group is made.
OF_SCHEDULER = (
    "chunked_prefill_size",
    "enable_lora",
    "enable_priority_preemption",
    "is_hybrid_swa",
    "max_prefill_tokens",
    "max_req_input_len",
    "max_running_requests",
    "max_total_num_tokens",
    "page_size",
    "server_args",
    "tree_cache",
    "waiting_queue",
)


def fit(scheduler: Any, members: Sequence[Any]) -> str | None:
    """Let the members of a group generate equally many tokens, all of which fit; or say why they cannot run.

    Args:
        members: their Reqs, the main request's first.
    """
    count, lengths = len(members), [len(member.origin_input_ids) for member in members]
    ended = next((member.to_finish for member in members if member.to_finish is not None), None)
    if ended is not None:
        return f"of a companion of this request SGLang says: {ended.message}"
    problem = _impossible(scheduler, members[0]) or _too_wide(scheduler, count, lengths) or _dressed(scheduler, members)
    if problem is not None:
        return problem
    page, pool = scheduler.page_size, scheduler.max_total_num_tokens
    room = (pool - sum(-(-length // page) * page for length in lengths)) // count - page - SPARE
    if room < 1:
        return (
            f"this request and its companions are {count} prompts of {sum(lengths)} tokens together; this server's KV "
            f"cache has room for {pool}, the answers included: send shorter ones, or start it with more memory "
            "(--mem-fraction-static, --max-total-tokens)"
        )
    most = min(room, *(member.sampling_params.max_new_tokens for member in members))
    for member in members:
        member.sampling_params.max_new_tokens = most
        member.sampling_params.min_new_tokens = min(most, member.sampling_params.min_new_tokens)
    return None


def _impossible(scheduler: Any, request: Any) -> str | None:
    lost = [name for name in OF_SCHEDULER if not hasattr(scheduler, name)]
    if lost:
        return f"this SGLang's Scheduler lacks {lost[0]}, which companions need"
    if scheduler.is_hybrid_swa or scheduler.tree_cache.supports_mamba():
        return "companions have not been tried with a model that keeps other state than keys and values; use another"
    if request.multimodal_inputs is not None:
        return "companions have not been tried with images in SGLang; send text"
    return None


def _too_wide(scheduler: Any, count: int, lengths: Sequence[int]) -> str | None:
    most = min(
        (scheduler.max_running_requests, "--max-running-requests"),
        (scheduler.server_args.prefill_max_requests or scheduler.max_running_requests, "--prefill-max-requests"),
    )
    if count > most[0]:
        return (
            f"this request and its companions are {count} requests that run together; allowed on this server: "
            f"{most[0]} ({most[1]})"
        )
    size = scheduler.chunked_prefill_size
    chunk, flag = size or scheduler.max_prefill_tokens, "--chunked-prefill-size" if size else "--max-prefill-tokens"
    cached = scheduler.tree_cache.supports_prefix_sharing()
    least = count * scheduler.page_size if cached else sum(lengths)
    if least <= chunk:
        return None
    way = "" if cached else ", or start it with the prefix cache (without --disable-radix-cache)"
    return (
        f"this request and its companions need a prefill of {least} tokens in one go; allowed on this server: {chunk} "
        f"({flag}){way}"
    )


def _dressed(scheduler: Any, members: Sequence[Any]) -> str | None:
    if not scheduler.enable_lora:
        return None
    worn, adapters = {member.lora_id for member in members}, scheduler.tp_worker.model_runner.lora_manager
    if not worn <= {None, *adapters.lora_refs}:
        return "an adapter that a companion of this request wears has just been unloaded; load it again"
    if adapters.validate_lora_batch(worn):
        return None
    return (
        f"this request and its companions wear {len(worn)} adapters at once (no adapter is one too), and this server "
        "has not so many places: start it with a larger --max-loras-per-batch, or pin fewer adapters"
    )
