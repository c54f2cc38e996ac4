"""What a reward needs whose model is on a server: where that is, and connections to it. Needs `midstep[http]`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from ..beside import Reward
from ..methods import Params


class Served(Params):
    """Where the model is."""

    url: str = Field(description="Of the server, such as http://localhost:8001.", examples=["http://localhost:8001"])
    model: str | None = Field(None, description="The served model's name; none: the first one of the server.")
    key: str | None = Field(None, description="Of the server's API.")


class ServedReward(Reward):
    """What every reward on a server has in common; waiting, retries and the breaker are the scorer's."""

    remote: ClassVar[bool] = True

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.url = self.params.url.rstrip("/").removesuffix("/v1")
        self._session: Any = None
        self._loop: Any = None
        self._model: str | None = self.params.model

    async def score(self, prompt: str, steps: Any) -> list[float]:
        """Score the steps of one answer."""
        return (await self.score_many([(prompt, steps)]))[0]

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def model(self) -> str:
        """Return the served model's name."""
        if self._model is None:
            self._model = str((await self.ask("/v1/models"))["data"][0]["id"])
        return self._model

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of one call; a body makes it a POST.

        Raises:
            RuntimeError: the status is not 200; the text is the server's.
        """
        method = "GET" if body is None else "POST"
        async with (await self._connected()).request(method, self.url + path, json=body) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise RuntimeError(f"{self.url}{path} answered {answer.status}: {text[:500]}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise RuntimeError(f"{self.url}{path} answered no JSON: {text[:200]!r}") from error

    async def _connected(self) -> Any:
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            headers = {"Authorization": f"Bearer {self.params.key}"} if self.params.key else {}
            # the scorer's patience ends a call, and with it its connection
            timeout = aiohttp.ClientTimeout(total=None)
            self._session, self._loop = aiohttp.ClientSession(headers=headers, timeout=timeout), loop
        return self._session
