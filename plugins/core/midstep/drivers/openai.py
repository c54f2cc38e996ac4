"""Drives an OpenAI-compatible server that takes and gives token ids, as vLLM does: `POST /v1/completions`, streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ..entry import KEY
from ..searching import Call, Piece
from .http import Server
from .sharing import Choice, Sharing

SGLANG = "this is SGLang, which takes methods and stops in its own words; use midstep.drivers.sglang.SGLang(url)"


class OpenAI(Server):
    """A server over HTTP, as an engine for searches: `async with OpenAI("http://localhost:8000/v1") as engine`.

    Continuations are streamed requests. Copies of one prefix that a search asks for at once, and does not cancel one by
    one, are one request with `n`. Without a tokenizer, the server's `/tokenize` and `/detokenize` are asked.

    Args:
        url: up to and with `/v1`.
        model: None: the first one that the server names.
        copies: of one request at most; 1 sends each by itself. A request's copies draw with its seed, the next one ...,
            as in vLLM, so that this changes no token.
        more: the arguments of `midstep.drivers.http.Server`.
    """

    def __init__(self, url: str, model: str | None = None, *, copies: int = 32, **more: Any) -> None:
        super().__init__(url, **more)
        self.model = model
        self._root, self._caches = self.url.removesuffix("/v1"), True
        self._sharing = Sharing(self._continued, copies)

    def stream(self, call: Call) -> Choice:
        """Ask, and yield what comes."""
        return self._sharing.choice(call)

    async def _continued(self, call: Call, n: int) -> AsyncGenerator[tuple[int, Piece]]:
        """Ask for a call with its seed and the n - 1 next ones; yield each choice's number with what it adds.

        Raises:
            RuntimeError: the server refused, failed, or gives no token ids.
        """
        last, under_way = (0, Piece()), n
        body = {**self._body(call), **({"n": n} if n > 1 else {})}
        async with aclosing(self._chunks(f"{self.url}/completions", body)) as chunks:
            async for chunk in chunks:
                if self._caches:
                    last = last[0], _with_usage(last[1], chunk)
                for choice in chunk.get("choices") or ():
                    piece = _piece(choice, call)
                    under_way -= piece.ended is not None
                    # the end of the last one waits for the usage, which comes behind it
                    if under_way:
                        yield choice.get("index", 0), piece
                    else:
                        last = choice.get("index", 0), piece
        yield last

    async def _meet(self) -> None:
        if self.model is None:
            (first, *_) = (await self._ask(f"{self.url}/models"))["data"]
            if first.get("owned_by") == "sglang":
                raise RuntimeError(SGLANG)
            self.model = first["id"]
        async with self._session.get(f"{self._root}/metrics") as answer:
            said = await answer.text() if answer.status == 200 else ""
        self._caches = 'enable_prefix_caching="False"' not in said

    async def _encode(self, asked: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple((await self._beside("tokenize", asked))["tokens"])

    async def _decode(self, ids: Sequence[int]) -> str:
        """Return the text; special tokens are in it."""
        return str((await self._beside("detokenize", {"tokens": list(ids)}))["prompt"])

    async def _beside(self, what: str, asked: Mapping[str, Any]) -> Any:
        return await self._ask(f"{self._root}/{what}", {"model": self.model, **asked})

    def _body(self, call: Call) -> dict[str, Any]:
        body = {**self.sampling, **call.sampling, "model": self.model, "prompt": list(call.ids), "seed": call.seed}
        body |= {"max_tokens": call.max_tokens, "stream": True, "stream_options": {"include_usage": True}}
        body |= {"return_token_ids": True, "stop": call.stops(self.sampling), "include_stop_str_in_output": True}
        if call.logprobs:
            body["logprobs"] = 0
        if call.methods:
            # the server knows which methods it has; they need not be installed here
            body["vllm_xargs"] = {
                KEY: json.dumps({"methods": {name: value or {} for name, value in call.methods.items()}})
            }
        return body


def _piece(choice: Mapping[str, Any], call: Call) -> Piece:
    ids = choice.get("token_ids")
    if "matched_stop" in choice:  # a word of SGLang's that stands in each of its choices
        raise RuntimeError(SGLANG)
    if ids is None and choice.get("text"):
        raise RuntimeError(
            "the server gives no token ids; a search needs one that takes `return_token_ids`, as vLLM does, or SGLang "
            "with midstep.drivers.sglang"
        )
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
    reason, by = choice.get("finish_reason"), choice.get("stop_reason")
    if reason not in (None, "stop", "length"):
        raise RuntimeError(f"the server ended the request: {reason}")
    ended = None if reason is None else "length" if reason == "length" else "step" if by in call.until else "end"
    return Piece(tuple(ids or ()), tuple(logprobs), ended)  # type: ignore[arg-type]


def _with_usage(held: Piece, chunk: Mapping[str, Any]) -> Piece:
    details = (chunk.get("usage") or {}).get("prompt_tokens_details")
    return replace(held, cached=details.get("cached_tokens")) if details else held
