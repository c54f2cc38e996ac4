"""What this engine cannot serve beside a method, each with its reason and the way out."""

from __future__ import annotations

from typing import Any

from midstep import Configuration, Prepared, StopController
from midstep.configuration import current
from midstep.methods import Method
from midstep.watching.method import Watch
from midstep.watching.watched import Watched

from . import seams

PROCESSOR = "midstep_vllm:LogitsProcessor"
SCHEDULER = "midstep_vllm.Scheduler"


def configuration(config: Any) -> Configuration:
    """Return the configuration that the engine names, or MIDSTEP_CONFIG.

    Raises:
        ValueError: it cannot be read.
    """
    settings = config.additional_config
    path = settings.get("midstep") if isinstance(settings, dict) else None
    if path is not None and not isinstance(path, str):
        raise ValueError(f"--additional-config: midstep = {path!r}; allowed: the path of a midstep.toml")
    return current(path)


def engine_reason(config: Any) -> str | None:
    """Return why no request of this engine can use a method, or None."""
    parallel, model = config.parallel_config, config.model_config
    if config.speculative_config is not None:
        return "it is not served under speculative decoding; start the server without --speculative-config"
    if model.is_diffusion:
        return "a diffusion model has no next token; serve an autoregressive model"
    if model.return_sampling_mask:
        return "it is not served beside --return-sampling-mask, whose mask would not be the one that was sampled from"
    if parallel.pipeline_parallel_size > 1:
        return "it is not served under pipeline parallelism; use --tensor-parallel-size instead"
    if parallel.enable_batch_sharded_sampling:
        return "it is not served under batch-sharded sampling; start without --enable-batch-sharded-sampling"
    try:
        configuration(config)
    except ValueError as error:
        return f"the server's configuration cannot be used: {error}"
    return seams.missing()


def loaded(config: Any) -> bool:
    """Say whether the worker half is in the engine."""
    named = config.model_config.logits_processors or ()
    return any(item == PROCESSOR or getattr(item, "__module__", "") == "midstep_vllm.processor" for item in named)


def channel(config: Any) -> bool:
    """Say whether the scheduler half is in the engine: it ends requests exactly, says why, and reports."""
    named = config.scheduler_config.scheduler_cls
    if named in (SCHEDULER, "midstep_vllm.scheduler.Scheduler"):
        return True
    if named is None:
        return False
    from .scheduler import Scheduler

    cls = config.scheduler_config.get_scheduler_cls() if isinstance(named, str) else named
    return isinstance(cls, type) and issubclass(cls, Scheduler)


def request_reason(config: Any, request: Any, limit: int) -> str | None:
    """Return why no method can be served for this request, or None; `limit` is the most samples allowed."""
    params = request.sampling_params
    if request.resumable:
        return "it is not served for streaming input; send the whole prompt at once"
    if request.prompt_embeds is not None:
        return "it is not served for prompt embeddings; send text or token ids"
    if params.n > limit:
        return f"n = {params.n}; allowed on this server: {limit} (limits.n)"
    if params.trace_decode_token_ids:
        return "it is not served beside trace_decode_token_ids, which overwrites every token; leave one of them out"
    if getattr(config, "watermark_config", None) is not None and params.watermarking:
        return 'it is not served beside the watermark, which draws the token itself; send "watermarking": false'
    wants = params.logprobs is not None or params.logprob_token_ids
    if wants and config.model_config.logprobs_mode.startswith("processed"):
        mode = config.model_config.logprobs_mode
        return f"logprobs beside --logprobs-mode {mode} would show the draw; use raw_logprobs, or send no logprobs"
    return None


def method_reason(config: Any, request: Any, method: type[Method], prepared: Prepared) -> str | None:
    """Return why this method cannot be served for this request, or None."""
    params = request.sampling_params
    if prepared.sequences and params.thinking_token_budget is not None:
        return "it forces tokens, and so does thinking_token_budget; send only one of them"
    if not issubclass(method, StopController | Watch) or channel(config):
        return None
    name = config.scheduler_config.scheduler_cls
    if issubclass(method, Watch):
        return f"--scheduler-cls {name} cannot watch it; start with --scheduler-cls {SCHEDULER}"
    if params.structured_outputs is not None:
        return f"under --scheduler-cls {name} it would break the grammar; start with --scheduler-cls {SCHEDULER}"
    if not ends(params):
        return f"under --scheduler-cls {name} it needs an end token; leave ignore_eos out, or send stop_token_ids"
    return None


def samples_reason(config: Any, watch: Watched) -> str | None:
    """Return why the samples of a watched request cannot be compared, or None."""
    parts = config.parallel_config.data_parallel_size
    if watch.asked.do != "weakest" or parts < 2:
        return None
    return f'do = "weakest" needs its samples in one engine, and --data-parallel-size is {parts}; send do = "stop"'


def ends(params: Any) -> tuple[int, ...]:
    """Return the token ids that end this request; the first is the one that stands for 'the end'."""
    own = () if params.eos_token_id is None else (params.eos_token_id,)
    return (*own, *(token for token in params.stop_token_ids or () if token not in own))
