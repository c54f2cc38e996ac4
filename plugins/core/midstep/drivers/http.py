"""What drivers over HTTP have in common: a session, lines that are streamed, and a server's refusals."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ..searching import Streaming


class Server(Streaming):
    """A server over HTTP; needs aiohttp (`pip install midstep[http]`). Closing a connection ends its request there.

    Args:
        url: where its paths begin.
        key: of the API.
        tokenizer: Hugging Face's, of the served model: then a separator that begins in the step so far is found too,
            and texts need no call. None: the server's own.
        sampling: for every call: temperature, top_p and whatever else the server takes.
        connections: at once; more wait for their turn.
        timeout: seconds without a word from the server after which a continuation has failed.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        tokenizer: Any = None,
        sampling: Mapping[str, Any] | None = None,
        connections: int = 256,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(tokenizer)
        self.url, self.sampling = url.rstrip("/"), dict(sampling or {})
        self._key, self._connections, self._timeout = key, connections, timeout
        self._session: Any = None

    async def __aenter__(self) -> Self:
        """Connect, and ask what must be known of the server."""
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=self._timeout),
            read_bufsize=2**22,  # one line of a stream may hold all ids of a prompt, or of an answer
        )
        try:
            await self._meet()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._session.close()

    async def encode(self, prompt: str | Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Return the token ids of a text, or of a chat's messages."""
        if self.tokenizer is not None:
            return await super().encode(prompt)
        return await self._encode({"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)})

    async def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        if not ids:
            return ""
        return await (self._decode(ids) if self.tokenizer is None else super().decode(ids))

    @abstractmethod
    async def _meet(self) -> None:
        """Ask the server what must be known of it."""

    @abstractmethod
    async def _encode(self, asked: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the token ids of a `prompt` or of `messages`, by the server's tokenizer."""

    @abstractmethod
    async def _decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, by the server's tokenizer."""

    async def _ask(self, url: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON that the server answers, to a GET where there is no body."""
        asked = self._session.get(url) if body is None else self._session.post(url, json=body)
        async with asked as answer:
            return await good(answer)

    async def _chunks(self, url: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield what the server streams.

        Raises:
            RuntimeError: the server refused, or failed.
        """
        async with self._session.post(url, json=body) as answer:
            if answer.status != 200:
                await good(answer)
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise RuntimeError(f"the server failed: {chunk['error'].get('message', chunk['error'])}")
                    yield chunk


async def good(answer: Any) -> Any:
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
