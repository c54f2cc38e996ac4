"""What went wrong, as OpenAI's clients expect to read it."""

from __future__ import annotations

from typing import Any

# OpenAI's clients send what failed with 500 once more, and a search is dear; a failed one is not repeated by itself.
HEADERS = {"x-should-retry": "false"}


def fault(error: BaseException) -> dict[str, Any]:
    """Return an error as a body: 400 for what the request should have said otherwise, else 500 with the reason."""
    bad = isinstance(error, ValueError)
    text = str(error) if bad else f"{type(error).__name__}: {error}"
    return body(text, "BadRequestError" if bad else "InternalServerError", 400 if bad else 500)


def body(text: str, kind: str, status: int) -> dict[str, Any]:
    """Return an error's body."""
    return {"error": {"message": text, "type": kind, "param": None, "code": status}}
