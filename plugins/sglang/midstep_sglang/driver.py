"""Drives SGLang in this process: an `sglang.Engine`, without a server between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

from midstep.drivers.sglang import Answer, params
from midstep.searching import Call, Piece, Streaming


class SGLang(Streaming):
    """An `sglang.Engine` as an engine for searches: `SGLang(sglang.Engine(...))`.

    Args:
        engine: whoever made it shuts it down. It answers in one event loop: that of its first call.
        tokenizer: Hugging Face's; None: the engine's own.
        sampling: for every call: temperature, top_p and whatever else SGLang takes.
        draw: midstep draws where a call names no method. SGLang itself keeps a request's seed only with
            `enable_deterministic_inference`.

    Raises:
        ValueError: there is no tokenizer.
    """

    def __init__(
        self, engine: Any, *, tokenizer: Any = None, sampling: Mapping[str, Any] | None = None, draw: bool = True
    ) -> None:
        own = tokenizer if tokenizer is not None else engine.tokenizer_manager.tokenizer
        if own is None:
            raise ValueError("the engine runs with skip_tokenizer_init = True; pass tokenizer=, of its model")
        super().__init__(own)
        self.engine, self.sampling, self.draw = engine, dict(sampling or {}), draw

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """Ask, and yield what comes; closing the iterator aborts the request.

        Raises:
            RuntimeError: the engine ended the request, or answers in another event loop.
        """
        manager = self.engine.tokenizer_manager
        if manager.event_loop not in (None, asyncio.get_running_loop()):
            raise RuntimeError(
                "this sglang.Engine answers in the event loop of its first call; search there too, as with "
                "engine.loop.run_until_complete(midstep.search(...))"
            )
        outputs = await self.engine.async_generate(
            input_ids=list(call.ids),
            sampling_params=params(call, self.sampling, manager.context_len, self.draw),
            rid=uuid4().hex,
            stream=True,
            return_logprob=call.logprobs,
            logprob_start_len=-1,
        )
        answer = Answer(call, not self.engine.server_args.disable_radix_cache)
        try:
            async for output in outputs:
                yield answer.piece(output)
        finally:
            await outputs.aclose()
