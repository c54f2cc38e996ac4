"""sglang.Engine in pytest's process, which fails the test that it dies in and tells why.

SGLang itself kills the process of an engine, with every child of it, when one of the engine's own children dies: pytest
would go without a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SHOWN = 8000  # characters of the log's end


@contextmanager
def in_process(log: Path, session: pytest.Session, **arguments: Any) -> Iterator[Any]:
    """Start an engine whose children write to `log`, yield it, and shut it down; `session` ends if it dies."""
    import sglang
    from sglang.srt.entrypoints import engine
    from sglang.srt.managers import tokenizer_manager

    real = engine.kill_process_tree

    def kill(parent: int | None, include_parent: bool = True, **more: Any) -> None:
        if parent != os.getpid() or not include_parent:
            return real(parent, include_parent, **more)
        session.shouldstop = "sglang.Engine in this process died"
        # asyncio lets it through from the callback of a signal, and pytest takes it for a failure
        raise SystemExit(f"{session.shouldstop}; its log ends\n{log.read_text(errors='replace')[-SHOWN:]}")

    with pytest.MonkeyPatch.context() as patched:
        for module in (engine, tokenizer_manager):
            patched.setattr(module, "kill_process_tree", kill)
        running = _writing_to(log, lambda: sglang.Engine(**arguments))
        try:
            yield running
        finally:
            running.shutdown()


def _writing_to(log: Path, start: Callable[[], Any]) -> Any:
    """Return what `start` returns; the processes that it starts write to `log`, not where pytest forgets it."""
    kept = os.dup(2)
    with log.open("wb") as output:
        os.dup2(output.fileno(), 2)
    try:
        return start()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
