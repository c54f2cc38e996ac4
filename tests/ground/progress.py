"""Run a command, showing what it does and for how long; and the one way in which anything here fails."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# Seconds between two looks at a command, and between two lines about it where there is no terminal.
LOOK, SPEAK = 0.2, 30.0
# Seconds that an interrupted command has to end by itself.
PATIENCE = 10.0
# Characters of a command's last line that are shown where there is no terminal.
WIDTH = 80


class GroundError(Exception):
    """Ends a command with one line for its user."""


def say(line: str) -> None:
    """Print one line at once."""
    print(line, flush=True)


def run(
    what: str,
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    reason: Callable[[str], str] = lambda wrote: wrote.strip().rpartition("\n")[2],
) -> None:
    """Run a command to its end with its output in the log, and show what it does, for how long, and its last line.

    Raises: GroundError if it fails, with the reason found in what it wrote (its last line), and the log's path.
    """
    started = spoken = time.monotonic()
    offset = log.stat().st_size
    with log.open("ab") as output, child(command, env, cwd, output.fileno()) as process:
        while process.poll() is None:
            elapsed = time.monotonic() - started
            line = f"{what}  {elapsed:.0f} s  "
            show(line + last_line(log))
            if not sys.stdout.isatty() and time.monotonic() - spoken >= SPEAK:
                spoken = time.monotonic()
                say(line + last_line(log)[:WIDTH])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
    show("")
    if process.returncode:
        wrote = log.read_bytes()[offset:].decode(errors="replace")
        raise GroundError(f"{what}: failed: {reason(wrote)} (all of it: {log})")
    say(f"{what}  {time.monotonic() - started:.0f} s")


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
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        process_group=0,
        # A shell's background job ignores interrupts, and would pass that on.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    except (KeyboardInterrupt, GeneratorExit, subprocess.TimeoutExpired):
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


def show(line: str) -> None:
    """Write over the terminal's last line; without a terminal, nothing."""
    if not sys.stdout.isatty():
        return
    width = shutil.get_terminal_size().columns - 1
    sys.stdout.write(f"\r\x1b[K{line[:width]}")
    sys.stdout.flush()


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def in_one_line(command: Callable[[], int]) -> int:
    """Run a whole command and return its exit status; what stops it is said in one line."""
    # What ends the command ends its children too: they are in groups of their own.
    for number in (signal.SIGTERM, signal.SIGHUP):
        # nohup stays what it is.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        return command()
    except KeyboardInterrupt:
        say("\nmidstep: interrupted; the same command goes on from here")
        return 130
    except (GroundError, OSError) as error:
        say(f"midstep: {error}")
        return 1
