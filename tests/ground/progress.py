"""Run a command, showing what it does and for how long; and the one way in which anything here fails."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Seconds between two looks at a command, and between two lines about it where there is no terminal.
LOOK, SPEAK = 0.2, 30.0
# Seconds that an interrupted command has to end by itself.
PATIENCE = 10.0


class GroundError(Exception):
    """Ends a command with one line for its user."""


def say(line: str) -> None:
    """Print one line at once."""
    print(line, flush=True)


def run(
    what: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str | None:
    """Run a command to its end with its output in the log, and show what it does, for how long, and its last line.

    Returns: None if it succeeded, else what it wrote.
    """
    started = spoken = time.monotonic()
    offset = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output, child(command, env, cwd, output.fileno()) as process:
        while process.poll() is None:
            elapsed = time.monotonic() - started
            if sys.stdout.isatty():
                _show(f"{what}  {elapsed:.0f} s  {_last_line(log)}")
            elif time.monotonic() - spoken >= SPEAK:
                spoken = time.monotonic()
                say(f"{what}  {elapsed:.0f} s  {_last_line(log)}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
    if sys.stdout.isatty():
        _show("")
    if process.returncode == 0:
        say(f"{what}  {time.monotonic() - started:.0f} s")
        return None
    return log.read_bytes()[offset:].decode(errors="replace")


@contextlib.contextmanager
def child(
    command: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a process group of its own; at the end, whatever of the group is left is ended.

    Engines start processes that outlive a test which dies, and then spin; here nothing does.
    """
    errors = None if output is None else subprocess.STDOUT
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, process_group=0
    )
    try:
        yield process
    except KeyboardInterrupt:
        _signal(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        raise
    finally:
        _signal(process.pid, signal.SIGKILL)
        process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _show(line: str) -> None:
    width = shutil.get_terminal_size().columns - 1
    sys.stdout.write(f"\r\x1b[K{line[:width]}")
    sys.stdout.flush()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
