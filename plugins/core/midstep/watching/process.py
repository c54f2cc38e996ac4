"""A reward's own process, as the engine's core sees it: begun when it is needed, and begun anew when it dies.

Two threads stand between the two, so that the engine's loop neither writes to a pipe nor reads from one.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from ..configuration import Configuration

logger = logging.getLogger("midstep")

BACKLOG = 1024  # messages that wait for the process
RESTS = (1.0, 60.0)  # seconds before a process that died is begun anew: the first time, and at most


class Process:
    """One life of a reward's process.

    Args:
        number: of the life, from 1.
        told: what it says is put there.
    """

    def __init__(self, number: int, hello: bytes, told: deque[dict[str, Any]]) -> None:
        self.number, self._told = number, told
        self._queue: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._closed = False
        self._child: subprocess.Popen[bytes] | None = None
        self.dead = False
        threading.Thread(target=self._live, args=(hello,), name="midstep-judge", daemon=True).start()

    def put(self, message: dict[str, Any], *, most: int | None = None) -> bool:
        """Send a message some time soon, unless `most` wait already; say whether."""
        if most is not None and self._queue.qsize() >= most:
            return False
        self._queue.put(message)
        return True

    def close(self) -> None:
        """Kill it."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
            child.wait()

    def _live(self, hello: bytes) -> None:
        why = "its process could not be started"
        try:
            ours, theirs = Pipe()
            command = [sys.executable, "-m", "midstep.watching.judge", str(theirs.fileno()), str(os.getpid())]
            with theirs:
                self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
            weakref.finalize(self, self._child.kill)
            if self._closed:
                self._child.kill()
            with ours:
                ours.send_bytes(hello)
                threading.Thread(target=self._write, args=(ours,), name="midstep-judge-write", daemon=True).start()
                self._read(ours)
                self._child.kill()
            why = f"its process ended with code {self._child.wait()}"
        except OSError as error:
            why = f"{why}: {error}"
        self.dead = True
        self._queue.put(None)
        if not self._closed:
            logger.warning("midstep: a reward's %s", why.removeprefix("its "))
            self._told.append({"died": self.number, "fault": why})

    def _read(self, connection: Connection) -> None:
        with suppress(EOFError, OSError, ValueError):
            while True:
                self._told.append({**json.loads(connection.recv_bytes()), "process": self.number})

    def _write(self, connection: Connection) -> None:
        with suppress(OSError):
            while (message := self._queue.get()) is not None and not self.dead:
                connection.send_bytes(json.dumps(message).encode())


class Judge:
    """A reward that is asked from the engine's loop.

    Args:
        name: as requests name it.
        configuration: the server's; the process finds the reward in it.
    """

    def __init__(self, name: str, configuration: Configuration) -> None:
        self.name = name
        self.told: deque[dict[str, Any]] = deque()
        self._hello = json.dumps({"reward": name, "configuration": configuration.model_dump(mode="json")}).encode()
        self._process: Process | None = None
        self._rest, self._until = RESTS[0], 0.0

    @property
    def process(self) -> int:
        """Return the number of the process that would be asked now; 0: none."""
        return self.begin() or 0

    def begin(self) -> int | None:
        """See that there is a process, unless the last one died just now; return its number."""
        process, now = self._process, time.monotonic()
        if process is not None and not process.dead:
            return process.number
        if process is not None and not self._until:
            self._until, self._rest = now + self._rest, min(2 * self._rest, RESTS[1])
        if now < self._until:
            return None
        self._until = 0.0
        self._process = Process(1 if process is None else process.number + 1, self._hello, self.told)
        return self._process.number

    def ask(self, message: dict[str, Any]) -> str | None:
        """Send a question; return why it cannot be sent, or None."""
        if self.begin() is None or self._process is None:
            return "its process died, and is begun anew later"
        return None if self._process.put(message, most=BACKLOG) else f"{BACKLOG} messages wait for it already"

    def forget(self, key: str) -> None:
        """Say that a request has ended."""
        if self._process is not None and not self._process.dead:
            self._process.put({"key": key, "gone": True})

    def close(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.close()
