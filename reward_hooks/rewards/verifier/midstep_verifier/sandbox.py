"""Runs a stranger's Python with tests, in a process that has given up what it could do harm with."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# What the process runs behind `seal`. What is told stands behind a word that the code was never given as a variable.
HARNESS = """
import json
def _main():
    asked = json.loads(sys.stdin.buffer.read())
    told = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(null, place)
    os.close(null)
    word, tell = asked.pop("word"), os.write
    def say(**what):
        tell(told, json.dumps({"word": word, **what}).encode() + b"\\n")
    faults = seal(asked["seconds"], asked["memory"])
    say(faults=faults)
    if faults and not asked["lax"]:
        return
    held, passed = {"__name__": "__main__"}, 0
    for text in (asked["code"], *asked["tests"]):
        try:
            exec(compile(text, "<answer>" if text is asked["code"] else "<test>", "exec"), held)
        except BaseException:
            if text is asked["code"]:
                return
        else:
            passed += text is not asked["code"]
    say(passed=passed)
_main()
os._exit(0)
"""
SAID = 2**16  # bytes; the process says two short lines


class UnsealedError(RuntimeError):
    """This kernel does not let a process give up all that it must."""


@dataclass(frozen=True)
class Bounds:
    """What a run may take.

    Args:
        seconds: of the clock; of the processor, one more, rounded up.
        memory: MiB of address space.
        lax: run although the kernel cannot cut off files, processes or the network.
    """

    seconds: float
    memory: int
    lax: bool = False


async def passed(code: str, tests: Sequence[str], bounds: Bounds) -> int:
    """Run code and then each test in the same names; return how many tests raised nothing, 0 if the code itself failed.

    The process has no variables, no open files, no terminal and nowhere to write; at its time's end it is killed, with
    its group.

    Raises:
        UnsealedError: the kernel lacks Landlock or seccomp, and `lax` is not set.
    """
    word = secrets.token_hex(16)
    asked = {"word": word, "code": code, "tests": list(tests), "lax": bounds.lax}
    asked |= {"seconds": int(bounds.seconds) + 2, "memory": bounds.memory << 20}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-B", "-c", _text()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    said = b""
    try:
        with suppress(TimeoutError):
            said = await asyncio.wait_for(_talk(process, json.dumps(asked).encode()), bounds.seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # before the wait, which else goes on while a pipe that nobody reads is open
        process._transport.close()  # type: ignore[attr-defined]
        await process.wait()
    return _read(said, word, bounds.lax)


async def _talk(process: asyncio.subprocess.Process, asked: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(asked)
        await process.stdin.drain()
    process.stdin.close()
    said = b""
    while len(said) < SAID and (more := await process.stdout.read(SAID)):
        said += more
    return said


def _read(said: bytes, word: str, lax: bool) -> int:
    count = 0
    for line in said.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and told.get("word") == word:
            if told.get("faults") and not lax:
                raise UnsealedError(
                    f"this kernel cannot hold strangers' code: {'; '.join(told['faults'])}; "
                    "set lax = true to run it all the same, where nothing can be lost"
                )
            count = int(told.get("passed", count))
    return count


def _text() -> str:
    return Path(__file__).with_name("seal.py").read_text(encoding="utf-8") + HARNESS
