"""Asks a running server, vLLM's or SGLang's, over the OpenAI routes that both have."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from .entry import KEY
from .report import Report, report

ENTRIES = {"vllm": "vllm_xargs", "sglang": "custom_params"}
SECONDS = 600


@dataclass(frozen=True)
class Question:
    """One request; `extra` is midstep's entry, None for a plain one."""

    prompt: str
    sampling: Mapping[str, Any]
    extra: Mapping[str, str] | None = None
    chat: bool = False
    stream: bool = False
    logprobs: bool = False

    def body(self, engine: str) -> dict[str, Any]:
        """Return it in an engine's words, without the model."""
        body: dict[str, Any] = {**self.sampling, "stream": self.stream}
        body |= {"messages": [{"role": "user", "content": self.prompt}]} if self.chat else {"prompt": self.prompt}
        body |= {} if self.extra is None else {ENTRIES[engine]: self.extra}
        return body | ({"logprobs": True if self.chat else 1} if self.logprobs else {})


@dataclass(frozen=True)
class Answer:
    """What came back: why it ended, midstep's report, and the whole response where it was not streamed."""

    ended: str
    report: Report | None
    response: Any = None


@dataclass(frozen=True)
class Server:
    """A running server: where it is, what it is, and the model it serves."""

    url: str
    key: str | None
    engine: str
    model: str

    @classmethod
    def find(cls, url: str, key: str | None, engine: str | None, model: str | None) -> Server:
        """Ask the server what is not given.

        Raises:
            ValueError: nothing answers there, or it is neither vLLM nor SGLang.
        """
        url = url.rstrip("/").removesuffix("/v1")
        served = _json(cls(url, key, "", "")._open("/v1/models"))["data"][0]
        engine = engine or served.get("owned_by")
        if engine not in ENTRIES:
            raise ValueError(f"{url} says that it is {engine!r}; name it with --engine vllm or --engine sglang")
        return cls(url, key, engine, model or served["id"])

    def ask(self, question: Question, show: Callable[[str], None]) -> Answer:
        """Send a question, `show` the answer's text, in pieces where it is streamed, and return what came with it."""
        path = "/v1/chat/completions" if question.chat else "/v1/completions"
        response = self._open(path, {"model": self.model, **question.body(self.engine)})
        if question.stream:
            return self._streamed(response, show, reported=question.extra is not None)
        whole = _json(response)
        choice = whole["choices"][0]
        show(_text(choice))
        return Answer(_ended(choice), report(whole), whole)

    def _streamed(self, response: HTTPResponse, show: Callable[[str], None], *, reported: bool) -> Answer:
        name, ended, found = "", "the connection", None
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line.removeprefix(b"data: "))
            if "error" in chunk:
                raise ValueError(_message(chunk))
            name = chunk["id"]
            for choice in chunk["choices"]:
                show(_text(choice))
                if choice.get("finish_reason") is not None:
                    ended, found = _ended(choice), report(chunk)
        if found is None and reported and self.engine == "vllm":  # its streams have no field for the report
            found = report({"kv_transfer_params": {KEY: _json(self._open(f"/midstep/report/{name}"))}})
        return Answer(ended, found)

    def _open(self, path: str, body: Mapping[str, Any] | None = None) -> HTTPResponse:
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent = None if body is None else json.dumps(body).encode()
        try:
            asked = urllib.request.Request(self.url + path, sent, headers)
            answer: HTTPResponse = urllib.request.urlopen(asked, timeout=SECONDS)
            return answer
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise ValueError(f"{self.url}{path} answers {error.code}: {_message(text)}") from error
        except urllib.error.URLError as error:
            raise ValueError(f"no server answers at {self.url}: {error.reason}; name it with --url") from error


def _json(response: HTTPResponse) -> Any:
    with response:
        return json.loads(response.read())


def _message(said: Any) -> str:
    """Return the text of a server's refusal, whichever of the two engines' forms it has."""
    if isinstance(said, str):
        try:
            said = json.loads(said)
        except ValueError:
            return str(said)
    inner = said.get("error", said) if isinstance(said, Mapping) else said
    return str(inner.get("message", inner) if isinstance(inner, Mapping) else inner)


def _text(choice: Mapping[str, Any]) -> str:
    said = choice.get("message") or choice.get("delta") or {}
    return str(choice.get("text") or said.get("content") or "")


def _ended(choice: Mapping[str, Any]) -> str:
    return str(choice.get("stop_reason") or choice.get("matched_stop") or choice["finish_reason"])
