"""midstep in SGLang: installed = enabled, in every process, through SGLang's own plugin entry point.

In SGLang programs: `midstep_sglang.gen("answer", min_p={"p": 0.1})`, and `midstep_sglang.search("answer", rebase={},
reward=...)`, with the backend `midstep_sglang.Endpoint(url)`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .language import Endpoint, gen
    from .programs import search

__all__ = ["Endpoint", "gen", "register", "search"]

LANGUAGE = {"Endpoint": "language", "gen": "language", "search": "programs"}


def register() -> None:
    """Register midstep's hooks and sampler. SGLang calls this in each of its processes before anything starts."""
    if os.environ.get("MIDSTEP") == "off":
        return
    from .enabling import install

    install()


def __getattr__(name: str) -> Any:
    """Load the language's part only where it is used: the servers' processes never need it."""
    if name not in LANGUAGE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f".{LANGUAGE[name]}", __name__), name)
