"""Runs midstep's command line, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys

from midstep import command


def midstep(*words: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, and return what it said."""
    return subprocess.run(
        [sys.executable, "-m", "midstep", *words],
        env={**os.environ, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def main(words: list[str]) -> int:
    """Run a command in this process."""
    return command.run(words)
