"""The names of vLLM that midstep relies on, none of them public, and how one of them is wrapped."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any

TESTED = "0.32.0"
FIRST, BEYOND = (0, 32), (0, 34)

CONFIGURE = "vllm.engine.arg_utils:EngineArgs.create_engine_config"
ADMIT = "vllm.v1.engine.input_processor:InputProcessor.process_inputs"
STAMP = "vllm.v1.engine.output_processor:OutputProcessor.add_request"
COLLECT = "vllm.v1.engine.output_processor:OutputProcessor.process_outputs"
REPORT = "vllm.v1.engine.output_processor:RequestState.make_request_output"
EXECUTE = "vllm.v1.worker.worker_base:WorkerWrapperBase.execute_model"
SAMPLE = "vllm.v1.worker.worker_base:WorkerWrapperBase.sample_tokens"
ENDPOINTS = "vllm.plugins:load_endpoint_plugins"
# only beside an engine with adapters
ADAPTERS = {
    "vllm.v1.engine.llm_engine:LLMEngine.add_lora": "add_lora",
    "vllm.v1.engine.async_llm:AsyncLLM.add_lora": "add_lora_async",
    "vllm.v1.engine.llm_engine:LLMEngine.remove_lora": "remove_lora",
    "vllm.v1.engine.async_llm:AsyncLLM.remove_lora": "remove_lora",
}
# only in a process that serves HTTP
UNLOAD = "vllm.entrypoints.openai.models.serving:OpenAIServingModels.unload_lora_adapter"
GENERATE = "vllm.v1.engine.async_llm:AsyncLLM.generate"
BEAMS = (
    "vllm.entrypoints.openai.completion.protocol:CompletionRequest.to_beam_search_params",
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.to_beam_search_params",
)

WRAPPED = (CONFIGURE, ADMIT, STAMP, COLLECT, REPORT, EXECUTE, SAMPLE)
USED = (
    "vllm.v1.engine:EngineCoreOutput",
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler.update_from_output",
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._update_request_with_output",
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._reserve_prefill_lookahead",
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._handle_blocked_waiting_request",
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._get_local_prefix_cache_hit",
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._preempt_request",
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._request_blocks_can_be_freed",
    "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator.get_num_blocks_to_allocate",
    "vllm.v1.request:RequestStatus.FINISHED_STOPPED",
    "vllm.v1.outputs:AsyncModelRunnerOutput.get_output",
    "vllm.v1.outputs:EMPTY_MODEL_RUNNER_OUTPUT",
    "vllm.v1.sample.logits_processor:LogitsProcessor.update_state",
    "vllm.v1.sample.logits_processor.builtin:process_dict_updates",
    "vllm.v1.worker.gpu.sample.logits_processor:LogitsProcessor.add_request",
)


def find(name: str) -> Any:
    """Return what `module:path` names.

    Raises:
        ImportError, AttributeError: this vLLM does not have it.
    """
    module, path = name.split(":")
    return attrgetter(path)(importlib.import_module(module))


def missing() -> str | None:
    """Return why midstep cannot work in this vLLM, or None."""
    lost = [name for name in (*WRAPPED, *USED) if not exists(name)]
    if lost:
        return f"this vLLM has no {', '.join(lost)}; tested with vLLM {TESTED}: install it, or a newer midstep-vllm"
    loose = [name for name in WRAPPED if not is_wrapped(name)]
    return f"midstep did not get hold of {', '.join(loose)}; the server's log says why" if loose else None


def exists(name: str) -> bool:
    """Say whether this vLLM has what `name` names."""
    try:
        find(name)
    except (ImportError, AttributeError):
        return False
    return True


def is_wrapped(name: str) -> bool:
    """Say whether midstep stands around the function that `name` names, in this process."""
    return exists(name) and hasattr(find(name), "midstep")


def version() -> str:
    """Return the version of the installed vLLM."""
    return str(find("vllm:__version__"))


def untested() -> str | None:
    """Return a line where the installed vLLM is outside the versions that midstep-vllm was made for, or None."""
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version().split(".")[:2])
    if FIRST <= numbers < BEYOND:
        return None
    return f"this is vLLM {version()}; midstep-vllm is made for >=0.32,<0.34 and was tested with {TESTED}"


def wrap(name: str, around: Callable[..., Any]) -> None:
    """Replace the function that `name` names by `around(original, *arguments)`; once, and only where it exists."""
    if not exists(name) or is_wrapped(name):
        return
    module, _, path = name.partition(":")
    place, _, attribute = path.rpartition(".")
    owner = find(f"{module}:{place}") if place else importlib.import_module(module)
    original = getattr(owner, attribute)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    wrapped.midstep = True  # type: ignore[attr-defined]
    setattr(owner, attribute, wrapped)
