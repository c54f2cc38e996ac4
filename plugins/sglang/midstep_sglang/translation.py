"""Says a request's own sampling parameters in midstep's words, and leaves SGLang neutral ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sglang.srt.sampling.sampling_params import TOP_K_ALL

import midstep

GREEDY_BELOW = 1e-6


def sampling_of(manager: Any, asked: Any, params: Any) -> midstep.Sampling:
    """Return the request's own parameters. SGLang says temperature 0 as top_k = 1; midstep keeps them apart."""
    given: Mapping[str, Any] = {**(manager.preferred_sampling_params or {}), **asked.sampling_params}
    heat, top_k = given.get("temperature"), given.get("top_k")
    return midstep.Sampling(
        temperature=0.0 if heat is not None and heat < GREEDY_BELOW else params.temperature,
        top_k=top_k if isinstance(top_k, int) and 0 < top_k < TOP_K_ALL else 0,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        min_tokens=params.min_new_tokens,
    )


def neutralise(params: Any) -> None:
    """Leave SGLang nothing to do but to take the one token that is left. In SGLang greedy is top_k = 1."""
    params.temperature, params.top_k, params.top_p, params.min_p = 1.0, 1, 1.0, 0.0
    params.repetition_penalty, params.presence_penalty, params.frequency_penalty = 1.0, 0.0, 0.0


def model_of(manager: Any, asked: Any, params: Any) -> midstep.Model:
    """Return what `prepare` may know of the model, with the token ids that end this request and what it wears."""
    tokenizer = manager.tokenizer
    ends: set[int] = set()
    if not params.ignore_eos:
        ends = set(params.stop_token_ids or ()) | set(manager.model_config.hf_eos_token_id or ())
        ends |= set(getattr(tokenizer, "additional_stop_token_ids", None) or ())
        ends |= {tokenizer.eos_token_id} if getattr(tokenizer, "eos_token_id", None) is not None else set()
    return midstep.Model(
        vocabulary=manager.model_config.vocab_size,
        tokenizer=tokenizer,
        ends=tuple(sorted(ends)),
        max_length=manager.context_len,
        adapter=asked.lora_path or None,
        adapters=tuple(adapters_of(manager)),
    )


def adapters_of(manager: Any) -> dict[str, str]:
    """Return the ids of the LoRA adapters that are loaded, by name."""
    if not manager.enable_lora:
        return {}
    return {name: one.lora_id for name, one in manager.lora_registry.get_all_adapters().items()}
