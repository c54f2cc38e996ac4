"""Drives vLLM in this process: an `AsyncLLM`, without a server between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

from midstep.entry import KEY
from midstep.searching import Call, Piece, Streaming


class VLLM(Streaming):
    """An `AsyncLLM` as an engine for searches: `VLLM(AsyncLLM.from_engine_args(...))`.

    Args:
        llm: the engine; whoever made it shuts it down.
        tokenizer: Hugging Face's; None: the engine's own.
        sampling: for every call: temperature, top_p and whatever else `SamplingParams` takes.
    """

    def __init__(self, llm: Any, *, tokenizer: Any = None, sampling: Mapping[str, Any] | None = None) -> None:
        super().__init__(tokenizer if tokenizer is not None else llm.get_tokenizer())
        self.llm, self.sampling = llm, dict(sampling or {})
        self._caches = bool(llm.vllm_config.cache_config.enable_prefix_caching)

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """Ask, and yield what comes; closing the iterator aborts the request."""
        outputs = self.llm.generate(
            {"prompt_token_ids": list(call.ids), "type": "token"}, self._params(call), uuid4().hex
        )
        try:
            async for output in outputs:
                (made,) = output.outputs
                ids = tuple(made.token_ids)
                logprobs = tuple(known[token].logprob for token, known in zip(ids, made.logprobs or (), strict=False))
                ended = None
                if made.finish_reason == "stop":
                    ended = "step" if made.stop_reason in call.until else "end"
                elif made.finish_reason == "length":
                    ended = "length"
                elif made.finish_reason is not None:
                    raise RuntimeError(f"vLLM ended the request: {made.finish_reason} ({made.stop_reason})")
                cached = output.num_cached_tokens if self._caches else None
                yield Piece(ids, logprobs, ended, cached)  # type: ignore[arg-type]
        finally:
            await outputs.aclose()

    def _params(self, call: Call) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        extra = {KEY: _entry(call.methods)} if call.methods else None
        return SamplingParams(
            **{**self.sampling, **call.sampling, "stop": call.stops(self.sampling)},
            seed=call.seed,
            max_tokens=call.max_tokens,
            include_stop_str_in_output=True,
            logprobs=0 if call.logprobs else None,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra,
        )


def _entry(methods: Mapping[str, Any]) -> str:
    return json.dumps({"methods": {name: value or {} for name, value in methods.items()}})
