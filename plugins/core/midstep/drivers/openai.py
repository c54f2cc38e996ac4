"""Drives an OpenAI-compatible server that takes and gives token ids, as vLLM does: `POST /v1/completions`, streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ..entry import KEY
from ..searching import Call, Piece, Streaming


class OpenAI(Streaming):
    """A server over HTTP, as an engine for searches: `async with OpenAI("http://localhost:8000/v1") as engine`.

    Needs aiohttp (`pip install midstep[http]`). Each continuation is one streamed request; closing it ends that in
    the server.

    Args:
        url: up to and with `/v1`.
        model: None: the first one that the server names.
        key: of the API.
        tokenizer: Hugging Face's, of the served model: then a separator that begins in the step so far is found too,
            and texts need no call. None: the server's own `/tokenize` and `/detokenize`.
        sampling: for every call: temperature, top_p and whatever else the server takes.
        connections: at once; more wait for their turn.
        timeout: seconds without a word from the server after which a continuation has failed.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        key: str | None = None,
        tokenizer: Any = None,
        sampling: Mapping[str, Any] | None = None,
        connections: int = 256,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(tokenizer)
        self.url, self.model, self.sampling = url.rstrip("/"), model, dict(sampling or {})
        self._key, self._connections, self._timeout = key, connections, timeout
        self._session: Any = None

    async def __aenter__(self) -> Self:
        """Connect, and find the model's name."""
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=self._timeout),
            read_bufsize=2**22,  # the first line of a stream holds all of the prompt's ids
        )
        try:
            if self.model is None:
                async with self._session.get(f"{self.url}/models") as answer:
                    self.model = (await _good(answer))["data"][0]["id"]
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._session.close()

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """Ask, and yield what comes.

        Raises:
            RuntimeError: the server refused, failed, or gives no token ids.
        """
        async with self._session.post(f"{self.url}/completions", json=self._body(call)) as answer:
            if answer.status != 200:
                await _good(answer)
            held: Piece | None = None
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    held = _with_usage(held, chunk)
                    if chunk.get("choices") or "error" in chunk:
                        if held is not None:
                            yield held
                        held = _piece(chunk, call)
                        # the last one waits for the usage, which comes behind it
                        if held.ended is None:
                            yield held
                            held = None
            if held is not None:
                yield held

    async def encode(self, prompt: str | Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Return the token ids of a text, or of a chat's messages."""
        if self.tokenizer is not None:
            return await super().encode(prompt)
        asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
        return tuple((await self._ask("tokenize", asked))["tokens"])

    async def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; without a tokenizer of its own, special tokens are in it."""
        if self.tokenizer is not None or not ids:
            return await super().decode(ids) if ids else ""
        return str((await self._ask("detokenize", {"tokens": list(ids)}))["prompt"])

    async def _ask(self, what: str, asked: Mapping[str, Any]) -> Any:
        url = f"{self.url.removesuffix('/v1')}/{what}"
        async with self._session.post(url, json={"model": self.model, **asked}) as answer:
            return await _good(answer)

    def _body(self, call: Call) -> dict[str, Any]:
        body = {**self.sampling, **call.sampling, "model": self.model, "prompt": list(call.ids), "seed": call.seed}
        body |= {"max_tokens": call.max_tokens, "stream": True, "stream_options": {"include_usage": True}}
        body |= {"return_token_ids": True, "stop": list(call.until) or None, "include_stop_str_in_output": True}
        if call.logprobs:
            body["logprobs"] = 0
        if call.methods:
            # the server knows which methods it has; they need not be installed here
            body["vllm_xargs"] = {
                KEY: json.dumps({"methods": {name: value or {} for name, value in call.methods.items()}})
            }
        return body


def _piece(chunk: Mapping[str, Any], call: Call) -> Piece:
    if "error" in chunk:
        raise RuntimeError(f"the server failed: {chunk['error'].get('message', chunk['error'])}")
    choice = chunk["choices"][0]
    ids = choice.get("token_ids")
    if ids is None and choice.get("text"):
        raise RuntimeError(
            "the server gives no token ids; a search needs one that takes `return_token_ids`, as vLLM does"
        )
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
    reason, by = choice.get("finish_reason"), choice.get("stop_reason")
    if reason not in (None, "stop", "length"):
        raise RuntimeError(f"the server ended the request: {reason}")
    ended = None if reason is None else "length" if reason == "length" else "step" if by in call.until else "end"
    return Piece(tuple(ids or ()), tuple(logprobs), ended)  # type: ignore[arg-type]


def _with_usage(held: Piece | None, chunk: Mapping[str, Any]) -> Piece | None:
    details = (chunk.get("usage") or {}).get("prompt_tokens_details")
    if held is None or not details:
        return held
    return Piece(held.ids, held.logprobs, held.ended, details.get("cached_tokens"))


async def _good(answer: Any) -> Any:
    """Return the JSON of an answer.

    Raises:
        RuntimeError: the status is not 200; the text is the server's.
    """
    if answer.status == 200:
        return await answer.json()
    text = await answer.text()
    try:
        said = json.loads(text)
        text = said.get("error", said).get("message", text)
    except (ValueError, AttributeError):
        pass
    raise RuntimeError(f"{answer.url} answered {answer.status}: {text[:500]}")
