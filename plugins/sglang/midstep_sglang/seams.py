"""Where midstep holds on to SGLang: every private place in one table, to be probed before it is used."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sglang.srt.plugins.hook_registry import HookType

MANAGERS = "sglang.srt.managers"
TOKENIZER = f"{MANAGERS}.tokenizer_manager.TokenizerManager"
SCHEDULER = f"{MANAGERS}.scheduler.Scheduler"
BATCH = "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo"
OPENAI = "sglang.srt.entrypoints.openai"


# What is called or overridden there: the place, and a parameter that tells that it is the one we know.
NEEDED = (
    ("sglang.srt.layers.sampler.Sampler.forward", "logprob_logits"),
    ("sglang.srt.layers.sampler.register_sampler_backend", "factory"),
    (f"{MANAGERS}.schedule_batch.Req.set_finish_with_abort", "error_msg"),
    (f"{MANAGERS}.schedule_batch.Req.update_finish_state", "new_accepted_len"),
    (f"{MANAGERS}.schedule_batch.Req.init_next_round_input", "tree_cache"),
    (f"{MANAGERS}.schedule_batch.ScheduleBatch.release_req", "remaing_req_count"),
    (f"{MANAGERS}.schedule_batch.ScheduleBatch.filter_batch", "keep_indices"),
    (f"{MANAGERS}.schedule_policy.PrefillAdder.add_one_req", "truncation_align_size"),
    (f"{MANAGERS}.schedule_policy.PrefillAdder.preempt_to_schedule", "req"),
    (f"{MANAGERS}.schedule_policy.PrefillAdder.ceil_paged_tokens", "tokens"),
    (f"{MANAGERS}.schedule_policy.PrefillAdder.budget_state", "self"),
    (f"{MANAGERS}.schedule_policy.PrefillAdder._get_running_request_total_token_offset", "req"),
    (f"{SCHEDULER}.get_num_allocatable_reqs", "num_held_rows"),
    (f"{MANAGERS}.scheduler_components.output_streamer.SchedulerOutputStreamer.stream_output", "reqs"),
    ("sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache.unlock", "lock"),
    ("sglang.srt.mem_cache.base_prefix_cache.BasePrefixCache.supports_prefix_sharing", "self"),
)


@dataclass(frozen=True)
class Seam:
    """One place: the dotted path, the hook, its type, and the parameters that the place must have, in order.

    `door` marks the hooks that refuse: they are all that is used of a SGLang that lacks something.
    """

    target: str
    hook: Callable[..., Any]
    kind: HookType
    parameters: tuple[str, ...]
    door: bool = False

    def missing(self) -> str | None:
        """Say what this SGLang lacks, or None."""
        try:
            place = pkgutil.resolve_name(self.target)
        except (ImportError, AttributeError, ValueError) as error:
            return f"{self.target} ({error})"
        have = tuple(inspect.signature(place).parameters)
        return None if have[: len(self.parameters)] == self.parameters else f"{self.target}{have}"

    def taken(self) -> bool:
        """Say whether the hook is in place."""
        return any(self.hook == cell for cell in _cells(pkgutil.resolve_name(self.target)))


def _cells(function: Any) -> Iterator[Any]:
    """Yield what the wrappers around `function` close over."""
    while function is not None:
        yield from (cell.cell_contents for cell in getattr(function, "__closure__", None) or ())
        function = getattr(function, "__wrapped__", None)


def doors(gate: Any) -> list[Seam]:
    """Return the hooks that refuse."""
    from . import intake

    validate, create = f"{TOKENIZER}._validate_one_request", f"{TOKENIZER}._create_tokenized_object"
    enqueue, unpickle = (
        f"{SCHEDULER}._add_request_to_queue",
        "sglang.srt.sampling.custom_logit_processor._cache_from_str",
    )
    return [
        Seam(validate, gate.refuse_code, HookType.BEFORE, ("self", "obj"), door=True),
        Seam(create, gate.admit, HookType.AROUND, ("self", "obj"), door=True),
        Seam(enqueue, intake.take, HookType.BEFORE, ("self", "req"), door=True),
        Seam(unpickle, intake.unpickle, HookType.REPLACE, (), door=True),
    ]


def engine_side() -> list[Seam]:
    """Return the hooks that steer, tell and answer."""
    from . import answers, channel, gang, gate, shadows, steered, worn

    before, after, around = HookType.BEFORE, HookType.AFTER, HookType.AROUND
    seams = [
        Seam(f"{TOKENIZER}._send_one_request", gate.stamp, before, ("self", "tokenized_obj")),
        Seam(f"{TOKENIZER}._send_batch_request", gate.stamp_all, before, ("self", "tokenized_objs")),
        Seam(f"{TOKENIZER}.update_request_meta_info", answers.unwrap, around, ("self", "meta_info", "state")),
        Seam(f"{TOKENIZER}._handle_abort_req", answers.aborted, around, ("self", "recv_obj")),
        Seam(f"{TOKENIZER}.generate_request", answers.remembered, around, ("self", "obj")),
        Seam(f"{SCHEDULER}.handle_generate_request", shadows.split, around, ("self", "recv_req")),
        Seam(f"{SCHEDULER}._add_request_to_queue", shadows.enqueue, around, ("self", "req", "is_retracted")),
        Seam(f"{SCHEDULER}.send_abort_output", shadows.announce, around, ("self", "abort_req", "req")),
        Seam(f"{SCHEDULER}.get_prefill_adder_class", gang.adder, after, ("self",)),
        Seam(f"{SCHEDULER}.can_schedule_lora_req", gang.dressed, around, ("self", "req", "running_loras")),
        Seam(f"{TOKENIZER}._release_lora_once", worn.released, around, ("self", "state")),
        Seam(f"{MANAGERS}.schedule_batch.ScheduleBatch.retract_decode", gang.retract, around, ("self",)),
        Seam(f"{SCHEDULER}.process_batch_result", channel.decide, before, ("self", "batch", "result")),
        Seam(f"{SCHEDULER}.get_output_streamer_class", channel.streamer, after, ("self",)),
        Seam(f"{BATCH}.adjusted_from_schedule_batch", steered.begun, after, ("self", "batch")),
        Seam(f"{BATCH}.adjusted_filter_batch", steered.filtered, after, ("self", "keep_indices")),
        Seam(f"{BATCH}.adjusted_merge_batch", steered.merged, after, ("self", "other")),
        Seam(f"{BATCH}.copy_for_forward", steered.copied, after, ("self",)),
    ]
    for module, name, build in (("chat", "Chat", answers.chat), ("completions", "Completion", answers.completion)):
        place, kind = f"{OPENAI}.serving_{module}.OpenAIServing{name}", name.lower()
        seams.append(Seam(f"{place}._build_{kind}_response", build, after, ("self", "request", "ret")))
        seams.append(Seam(f"{place}._generate_{kind}_stream", answers.streamed, around, ("self", "adapted_request")))
    return seams


def parameters(place: str) -> tuple[str, ...]:
    """Return the names of the parameters at a dotted path."""
    return tuple(inspect.signature(pkgutil.resolve_name(place)).parameters)
