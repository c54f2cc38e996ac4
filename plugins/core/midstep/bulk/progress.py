"""Shows how far a run has come: a bar where somebody looks, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

WIDTH = 30


class Progress:
    """How many prompts are done, how many failed, tokens, and the time that is left.

    Args:
        total: prompts of the file.
        done: of these, those that were finished before.
        failed: of these, those that failed.
        file: where it is shown, None: standard error; a bar on a terminal, else a line every `every` seconds.
    """

    def __init__(self, total: int, done: int, failed: int, file: TextIO | None = None, every: float = 5.0) -> None:
        self._total, self._done, self._failed, self._before = total, done, failed, done
        self._file = file or sys.stderr
        self._bar = self._file.isatty()
        self._every = 0.1 if self._bar else every
        self._tokens, self._began, self._shown = 0, time.monotonic(), 0.0
        self.show()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a prompt that is done."""
        self._done += 1
        self._failed += "error" in row
        spent = row.get("spent", {})
        self._tokens += spent.get("engine", 0) + spent.get("reward", 0)
        if time.monotonic() - self._shown >= self._every:
            self.show()

    def show(self, end: str = "") -> None:
        """Show it now."""
        self._shown = time.monotonic()
        text = self.text()
        if self._bar:
            filled = WIDTH * self._done // max(self._total, 1)
            text = f"\r\x1b[K{'█' * filled}{'░' * (WIDTH - filled)} {text}{end}"
        else:
            text += "\n"
        self._file.write(text)
        self._file.flush()

    def text(self) -> str:
        """Return it as a line."""
        seconds = time.monotonic() - self._began
        now = self._done - self._before
        parts = [f"{self._done}/{self._total} prompts", f"{self._failed} failed"]
        if now:
            parts += [f"{self._tokens} tokens", f"{now / max(seconds, 1e-9):.2f} prompts/s"]
            left = (self._total - self._done) * seconds / now
            parts += [f"{_clock(left)} left"] if self._done < self._total else [f"in {_clock(seconds)}"]
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
