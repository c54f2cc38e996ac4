"""Asks a live server whether midstep is in it, as any client could."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from .findings import Finding, line

SECONDS = 60
NOBODYS = "midstep_doctor_asks"  # a method that nobody has: where midstep is, it is refused


def asked(url: str, key: str | None) -> Iterator[Finding]:
    """Name the server's model, and send it a request of one token that a midstep refuses."""
    url = url.rstrip("/").removesuffix("/v1")
    try:
        status, text = _call(f"{url}/v1/models", key)
    except (OSError, ValueError) as error:
        yield Finding(
            f"{url} does not answer: {line(error)}", "start the server, or name its address as http://host:port"
        )
        return
    if status != 200:
        way = "give its key with --key" if status in (401, 403) else "name an OpenAI-compatible server"
        yield Finding(f"{url}/v1/models answers: HTTP {status}", way)
        return
    try:
        model = json.loads(text)["data"][0]["id"]
    except (ValueError, LookupError, TypeError):
        yield Finding(f"{url}/v1/models names no model", "name an OpenAI-compatible server")
        return
    yield Finding(f"{url} serves {model}")
    entry = {"midstep": json.dumps({"methods": {NOBODYS: {}}})}
    # each engine reads its own field and leaves the other alone
    body = {"model": model, "prompt": "a", "max_tokens": 1, "vllm_xargs": entry, "custom_params": entry}
    yield _judged(url, *_call(f"{url}/v1/completions", key, body))


def _judged(url: str, status: int, text: str) -> Finding:
    if status == 200:
        return Finding(
            f"{url} has no midstep: it answered a request that names a method which nobody has",
            "`pip install midstep-vllm` or `midstep-sglang` in the server's environment, and restart it",
        )
    try:
        error = json.loads(text)
        text = str(error.get("message") or error["error"]["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    text = " ".join(text.split())
    if status == 400 and f"no method named {NOBODYS!r}" in text:
        installed = text.partition("installed; ")[2].partition(";")[0]
        return Finding(f"{url} has midstep; {installed}")
    if status == 400 and "midstep" in text:
        return Finding(f"{url} has midstep, which serves no method: {text}", "what its text says; then restart it")
    return Finding(f"{url} answers a completion: HTTP {status}: {text[:200]}", "mend the server, then ask again")


def _call(url: str, key: str | None, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is not an address of the web")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=SECONDS) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
