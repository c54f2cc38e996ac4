"""What midstep does not serve in SGLang: by the server's flags, by a request's other wishes, by a method's needs."""

from __future__ import annotations

from typing import Any

from midstep import Admission, Prepared
from midstep.methods import Method
from midstep.watching.method import Watch

PICKLE = (
    "custom_logit_processor is refused on a server with midstep: it is code that the server would run; name an "
    "installed method under custom_params instead (midstep.request(...)), or start the server with MIDSTEP=off"
)
UNSEEN = (
    "midstep: this request reached the scheduler through a process in which midstep's checks are not installed; "
    "use `sglang serve` or sgl.Engine with Python's tokenizer, or send the request without midstep's entry"
)


def by_server(arguments: Any) -> str | None:
    """Say why a server started with `arguments` (its ServerArgs) serves no method, or None."""

    def given(name: str, default: Any = None) -> Any:
        return getattr(arguments, name, default)

    if given("speculative_algorithm"):
        return (
            f"--speculative-algorithm {given('speculative_algorithm')} verifies drafts without midstep; "
            "start the server without it"
        )
    if given("disaggregation_mode", "null") != "null":
        return f"--disaggregation-mode {given('disaggregation_mode')} splits a request; start the server without it"
    if given("pp_size", 1) > 1:
        return f"--pp-size {given('pp_size')} draws tokens in another process; use --tp-size instead"
    if given("dllm_algorithm"):
        return f"--dllm-algorithm {given('dllm_algorithm')} does not decode token by token; use another model"
    if given("watermark_enforce_all"):
        return "--watermark-enforce-all draws every token by its watermark; start the server without it"
    return None


def by_request(arguments: Any, tokenized: Any) -> str | None:
    """Say why a request with these other wishes cannot use a method, or None.

    Args:
        arguments: the server's ServerArgs.
        tokenized: SGLang's TokenizedGenerateReqInput of the request.
    """
    params = tokenized.sampling_params
    if tokenized.input_embeds is not None:
        return "input_embeds have no token ids, which methods need; send text or input_ids"
    if tokenized.session_params is not None:
        return "session_params continue a prompt that midstep has not seen; send the whole prompt"
    if tokenized.return_sampling_mask:
        return "return_sampling_mask tells what SGLang's own draw kept, and midstep draws; send one of the two"
    if _watermarked(arguments, params.watermark):
        return 'its watermark draws the token, as midstep does; send "watermark": {"enabled": false}, or no method'
    if (params.beam_width or 1) > 1:
        return f"beam_width = {params.beam_width} does not draw tokens; send beam_width = 1"
    return None


def _watermarked(arguments: Any, wish: Any) -> bool:
    if wish is None:
        return bool(getattr(arguments, "watermark_default_enabled", False))
    return wish.enabled is not False


UNTRIED = (
    "enable_dp_attention",
    "enable_prefill_delayer",
    "enable_hierarchical_cache",
    "enable_lmcache",
    "enable_lora_overlap_loading",
    "lora_drain_wait_threshold",
    "enable_hisparse",
    "enable_unified_cache_external_linker",
    "enable_pdmux",
    "enable_session_radix_cache",
)


def by_method(arguments: Any, custom: dict[str, Any], method: type[Method], prepared: Prepared) -> str | None:
    """Say why this adapter cannot serve what a method prepared, or None.

    Args:
        arguments: the server's ServerArgs.
        custom: the request's custom_params.
    """
    companions = _by_companions(arguments, prepared)
    if companions is not None:
        return companions
    size = getattr(arguments, "tp_size", 1)
    if issubclass(method, Watch) and size > 1:
        return f"under --tp-size {size} each rank would end a request at another step; start with --tp-size 1"
    if prepared.sequences and "thinking_budget" in custom:
        return "it forces tokens, as SGLang's thinking budget does; send it without max_thinking_tokens"
    return None


def apart(arguments: Any, admission: Admission) -> str | None:
    """Say that the samples of a watched request cannot be compared, since they are not in one scheduler, or None."""
    parts = getattr(arguments, "dp_size", 1)
    if admission.watch is None or admission.watch.asked.do != "weakest" or parts < 2:
        return None
    return f'do = "weakest" needs its samples in one engine, and --dp-size is {parts}; send do = "stop"'


def _by_companions(arguments: Any, prepared: Prepared) -> str | None:
    """Say why this server cannot keep a request and its companions together, or None."""
    flag = next((name for name in UNTRIED if getattr(arguments, name, False)), None)
    if not prepared.companions or flag is None:
        return None
    said = f"--{flag.replace('_', '-')}"
    return f"its companions have not been tried with {said}, which decides by itself what runs; start without {said}"


def too_many(n: int, limit: int) -> str | None:
    """Say that a request asks for more samples than the server allows, or None."""
    return f"n = {n} samples; allowed on this server: {limit} (limits.n)" if n > limit else None
