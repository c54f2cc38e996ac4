"""midstep in vLLM: installed is enabled. Nothing of vLLM is imported before it is needed.

The two halves can also be named by vLLM's own flags:
`--logits-processors midstep_vllm:LogitsProcessor --scheduler-cls midstep_vllm.Scheduler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .processor import LogitsProcessor
    from .scheduler import Scheduler

__all__ = ["LogitsProcessor", "Scheduler", "register"]


def register() -> None:
    """Install midstep in this process; vLLM calls this in every one of its processes. Calling it twice changes nothing.

    It never raises: an installed midstep must not stop an engine from starting.
    """
    from .enabling import install

    install()


def __getattr__(name: str) -> Any:
    if name == "LogitsProcessor":
        from .processor import LogitsProcessor

        return LogitsProcessor
    if name == "Scheduler":
        from .scheduler import Scheduler

        return Scheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
