"""How a refusal reaches its client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vllm.exceptions import VLLMValidationError


class RefusedError(VLLMValidationError, ValueError):  # type: ignore[misc]
    """A refused request: HTTP 400 with its text in vLLM's servers (a plain ValueError is a bare 500 there)."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn a ValueError into a refusal."""
    try:
        yield
    except ValueError as error:
        raise RefusedError(str(error)) from error
