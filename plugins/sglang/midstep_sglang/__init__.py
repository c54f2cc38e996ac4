"""midstep in SGLang: installed = enabled, in every process, through SGLang's own plugin entry point.

In SGLang programs: `midstep_sglang.gen("answer", min_p={"p": 0.1})` with the backend `midstep_sglang.Endpoint(url)`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .language import Endpoint, gen

__all__ = ["Endpoint", "gen", "register"]

LANGUAGE = ("Endpoint", "gen")


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
    from . import language

    return getattr(language, name)
