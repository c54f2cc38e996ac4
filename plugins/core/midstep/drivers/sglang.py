"""Drives SGLang over its own HTTP: `POST /generate`, streamed. What both drivers of SGLang share is here too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ..entry import KEY
from ..searching import Call, Piece
from .http import Server

# OpenAI's and vLLM's names of what SGLang's sampling parameters call otherwise.
NAMES = {"min_tokens": "min_new_tokens"}


class SGLang(Server):
    """A server over HTTP, as an engine for searches: `async with SGLang("http://localhost:30000") as engine`.

    Each continuation is one streamed request. SGLang sends all of an answer's ids again with each token, unless it was
    started with `--incremental-streaming-output`; both are understood. Without a tokenizer, the server's `/tokenize`
    and `/detokenize` are asked.

    Args:
        url: without `/v1`.
        draw: midstep draws, if the server has it, where a call names no method. SGLang itself keeps a request's seed
            only with `--enable-deterministic-inference`.
        more: the arguments of `midstep.drivers.http.Server`.
    """

    def __init__(self, url: str, *, draw: bool = True, **more: Any) -> None:
        super().__init__(url.rstrip("/").removesuffix("/v1"), **more)
        self.draw, self.context, self.caches = draw, 0, True

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """Ask, and yield what comes.

        Raises:
            RuntimeError: the server refused or failed.
        """
        body: dict[str, Any] = {"input_ids": list(call.ids)}
        body |= {"sampling_params": params(call, self.sampling, self.context, self.draw)}
        body |= {"stream": True, "return_logprob": call.logprobs, "logprob_start_len": -1}
        answer = Answer(call, self.caches)
        async with aclosing(self._chunks(f"{self.url}/generate", body)) as chunks:
            async for chunk in chunks:
                yield answer.piece(chunk)

    async def _meet(self) -> None:
        (model, *_) = (await self._ask(f"{self.url}/v1/models"))["data"]
        if model.get("owned_by") != "sglang":
            raise RuntimeError(f"{self.url} is not SGLang; use midstep.drivers.openai.OpenAI(url), up to and with /v1")
        self.context = model["max_model_len"]
        self.caches = not (await self._ask(f"{self.url}/server_info")).get("disable_radix_cache")

    async def _encode(self, asked: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple((await self._ask(f"{self.url}/tokenize", asked))["tokens"])

    async def _decode(self, ids: Sequence[int]) -> str:
        """Return the text, without special tokens."""
        asked = {"tokens": list(ids), "skip_special_tokens": True}
        return str((await self._ask(f"{self.url}/detokenize", asked))["text"])


def params(call: Call, sampling: Mapping[str, Any], context: int, draw: bool) -> dict[str, Any]:
    """Return SGLang's sampling parameters of a call.

    Args:
        context: tokens of prompt and answer that the engine has room for; what does not fit is not asked for, since
            SGLang refuses that.
        draw: midstep draws where the call names no method.
    """
    found = {NAMES.get(name, name): value for name, value in {**sampling, **call.sampling}.items()}
    room = context - len(call.ids)
    found |= {"max_new_tokens": min(call.max_tokens, room) if room > 0 else call.max_tokens}
    found |= {"stop": call.stops(sampling), "no_stop_trim": True, "sampling_seed": call.seed}
    if call.methods or draw:
        # the server knows which methods it has; they need not be installed here
        methods = {"methods": {name: value or {} for name, value in call.methods.items()}}
        found["custom_params"] = {KEY: json.dumps(methods if call.methods else {"draw": True})}
    return found


class Answer:
    """Reads the pieces of one answer; each chunk has its new tokens, or all that there are so far.

    Args:
        caches: the engine has a prefix cache, and says how much of a prompt it found there.
    """

    def __init__(self, call: Call, caches: bool) -> None:
        self._call, self._caches, self._have = call, caches, 0

    def piece(self, chunk: Mapping[str, Any]) -> Piece:
        """Return what is new in a chunk.

        Raises:
            RuntimeError: SGLang has aborted the request.
        """
        meta = chunk["meta_info"]
        reason = meta.get("finish_reason")
        if reason is not None and reason["type"] == "abort":
            raise RuntimeError(f"SGLang ended the request: {reason.get('message') or 'no reason given'}")
        made = meta["completion_tokens"]
        ids = self._new(chunk["output_ids"], made)
        logprobs = self._new(meta.get("output_token_logprobs") or (), made) if self._call.logprobs else ()
        self._have = made
        ended: Any = None
        if reason is not None:
            stopped = "step" if reason.get("matched") in self._call.until else "end"
            ended = "length" if reason["type"] == "length" else stopped
        cached = meta.get("cached_tokens") if self._caches else None
        return Piece(tuple(ids), tuple(float(one[0]) for one in logprobs), ended, cached)

    def _new(self, all_or_new: Sequence[Any], made: int) -> Sequence[Any]:
        whole = len(all_or_new) >= made
        return all_or_new[self._have : made] if whole else all_or_new[len(all_or_new) - (made - self._have) :]
