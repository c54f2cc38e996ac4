"""`python -m midstep.watching.judge FD PID`: one reward in a process of its own, which ends with the engine's.

The reward's loop has a thread of its own: a reward that blocks it for too long costs it this process, never the engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from ..configuration import Configuration
from ..searching.budget import Spent
from ..searching.rewards import served
from ..searching.scoring import Scorer
from .bench import Bench

LOOK = 1.0  # seconds between two looks at the engine, and at the reward's loop
GRACE = 10.0  # seconds beyond the reward's time-out for which it may block its loop
BLOCKED = 75  # the exit code of one that did


class Reader:
    """Reads what the engine sends, in the process's main thread, and looks after the reward's loop in another."""

    def __init__(self, connection: Connection, parent: int) -> None:
        self._connection, self._parent = connection, parent
        self._lock = threading.Lock()
        self._alive = time.monotonic()
        self._allowed = GRACE
        self._bench: Bench | None = None
        self._fault = ""

    def run(self) -> None:
        """Work until the engine is gone."""
        hello = json.loads(self._connection.recv_bytes())
        loop = asyncio.new_event_loop()
        threading.Thread(target=self._work, args=(loop, hello), daemon=True).start()
        while os.getppid() == self._parent:
            if self._connection.poll(LOOK):
                loop.call_soon_threadsafe(self._take, json.loads(self._connection.recv_bytes()))
            elif self._bench is not None:
                loop.call_soon_threadsafe(self._tick)
            blocked = time.monotonic() - self._alive
            if self._bench is not None and blocked > self._allowed:
                print(f"midstep: the reward blocked its loop for {blocked:.0f} s; its process ends", file=sys.stderr)
                os._exit(BLOCKED)

    def _work(self, loop: asyncio.AbstractEventLoop, hello: dict[str, Any]) -> None:
        """Make the reward, and run its loop."""
        asyncio.set_event_loop(loop)
        try:
            configuration = Configuration.model_validate(hello["configuration"])
            reward, patience = served(hello["reward"], configuration)
            self._allowed = patience.timeout + GRACE
            self._alive = time.monotonic()
            self._bench = Bench(Scorer(reward, patience, Spent()), configuration.limits.reward_tokens, self._tell)
        except Exception as error:  # a stranger's code
            self._fault = f"the reward could not be made: {type(error).__name__}: {error}"
        loop.run_forever()

    def _tick(self) -> None:
        self._alive = time.monotonic()

    def _take(self, message: dict[str, Any]) -> None:
        self._tick()
        if self._bench is not None:
            self._bench.take(message)
        elif "gone" not in message:
            self._tell({"key": message["key"], "count": None, "fault": self._fault})

    def _tell(self, told: dict[str, Any]) -> None:
        with self._lock:
            self._connection.send_bytes(json.dumps(told).encode())


def main(descriptor: int, parent: int) -> None:
    """Judge for the process `parent`, which speaks at the other end of a socket; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is the engine's to answer
    with suppress(EOFError, OSError):
        Reader(Connection(descriptor), parent).run()
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
