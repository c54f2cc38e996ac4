"""Why a request and its companions cannot be served: by the engine's flags, or because they cannot run at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from midstep import Admission, Companion
from midstep.companions import worn_by

from . import support


def companions_reason(config: Any, request: Any) -> str | None:
    """Return why the companions of a method cannot be served for this request, or None."""
    if not support.channel(config):
        name = config.scheduler_config.scheduler_cls
        return (
            f"it needs companions, which --scheduler-cls {name} does not make; start with --scheduler-cls "
            f"{support.SCHEDULER}"
        )
    if config.kv_transfer_config is not None:
        return "its companions are not served beside a KV connector; start the server without --kv-transfer-config"
    if request.mm_features:
        return "its companions have no images, sounds or videos; send a prompt of text alone"
    if config.model_config.is_hybrid or config.model_config.is_encoder_decoder:
        return "its companions were not tested with state-space or encoder-decoder models; serve a decoder-only one"
    text = config.model_config.hf_text_config
    if any(getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")):
        return "its companions are not right with layers that see a window of the last tokens; serve another model"
    return None


def group_reason(config: Any, request: Any, admission: Admission, known: int) -> str | None:
    """Return why a request and all of its companions cannot run at once, or None; so many adapters are `known`."""
    companions = [companion for use in admission.uses for companion in use.companions.values()]
    if not companions:
        return None
    rows = [len(request.prompt_token_ids or ()), *(len(one.prompt) for one in companions)]
    if min(rows) < 2:
        return "a prompt of 1 token; in vLLM a request and its companions need 2 at least"
    seats = config.scheduler_config.max_num_seqs
    if len(rows) > seats:
        return f"it needs {len(rows)} rows at once; this server has {seats} (--max-num-seqs)"
    return _adapters_reason(config, request, companions, known) or _too_large(config, request, rows)


def _adapters_reason(config: Any, request: Any, companions: Sequence[Companion], known: int) -> str | None:
    """Say that a request and its companions cannot wear what they wear in one step, or None."""
    own = None if request.lora_request is None else request.lora_request.lora_name
    worn = {own, *(worn_by(companion, own) for companion in companions)}
    count = len(worn - {None})
    if not count:
        return None
    slots = config.lora_config.max_loras
    if count > slots:
        return f"it and its companions wear {count} adapters at once; this server has room for {slots} (--max-loras)"
    if None in worn and known >= slots and _on_cpu():
        return (
            f"some of its rows wear no adapter, and on a CPU vLLM gives them another's once all {slots} places are "
            f"taken: start with --max-loras {known + 1}"
        )
    return None


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _too_large(config: Any, request: Any, rows: Sequence[int]) -> str | None:
    """Say that a request and its companions may outgrow the KV cache, or None."""
    cache, longest = config.cache_config, config.model_config.max_model_len
    if not cache.num_gpu_blocks:
        return None
    answer = request.sampling_params.max_tokens
    most = [longest if answer is None else min(length + answer, longest) for length in rows]
    room = cache.num_gpu_blocks // max(config.parallel_config.data_parallel_size, 1) - 1  # one block is vLLM's own
    if sum(-(-length // cache.block_size) for length in most) <= room:
        return None
    return (
        f"its {len(rows)} rows may come to {sum(most)} tokens; the KV cache has room for {room * cache.block_size}: "
        "send a smaller max_tokens"
    )
