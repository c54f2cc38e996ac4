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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ..configuration import Configuration
from ..searching.boundary import bare_steps
from ..searching.budget import Purse, Spent
from ..searching.rewards import served
from ..searching.scoring import RewardGoneError, Scorer

Tell = Callable[[dict[str, Any]], None]

KNOWN = 65_536  # scores that are kept of texts that may come again
LOOK = 1.0  # seconds between two looks at the engine, and at the reward's loop
GRACE = 10.0  # seconds beyond the reward's time-out for which it may block its loop
BLOCKED = 75  # the exit code of one that did


class Account(Purse):
    """What one request may still spend, of what its samples share; each payment is told."""

    def __init__(self, shared: Purse, paid: Callable[[int], None]) -> None:
        super().__init__(None)
        self._shared, self._paid = shared, paid

    def take(self, tokens: int, *, reward: bool = False) -> bool:
        """Take tokens out, if there are so many; say whether."""
        if not self._shared.take(tokens, reward=reward):
            return False
        self._paid(tokens)
        return True


@dataclass(eq=False)
class Case:
    """One request: what is known of its steps, and how much of that the reward has read."""

    key: str
    group: str
    question: str
    until: tuple[str, ...]
    prompt: int
    steps: list[str] = field(default_factory=list)
    end: int = 0
    scored: int = 0
    read: int = 0
    task: asyncio.Task[None] | None = None


class Bench:
    """Judges requests. Of each, one question is under way; what ends meanwhile is asked about with the next one.

    Args:
        scorer: the reward, with everything around it.
        most: tokens that a user's request may spend.
    """

    def __init__(self, scorer: Scorer, most: int, tell: Tell) -> None:
        self._scorer, self._most, self._tell = scorer, most, tell
        self._cases: dict[str, Case] = {}
        self._purses: dict[str, tuple[Purse, set[str]]] = {}

    def take(self, message: dict[str, Any]) -> None:
        """Take one message of the engine's."""
        key = message["key"]
        if "gone" in message:
            self._forget(key)
            return
        if "question" in message:
            until = tuple(message["until"])
            self._cases[key] = Case(key, message["group"], message["question"], until, message["prompt"])
            self._purses.setdefault(message["group"], (Purse(self._most), set()))[1].add(key)
        case = self._cases[key]
        case.steps += message["steps"]
        case.end = message["end"]
        if case.task is None or case.task.done():
            case.task = asyncio.get_running_loop().create_task(self._judge(case))

    def _forget(self, key: str) -> None:
        case = self._cases.pop(key, None)
        if case is None:
            return
        if case.task is not None:
            case.task.cancel()
        keys = self._purses[case.group][1]
        keys.discard(key)
        if not keys:
            del self._purses[case.group]

    async def _judge(self, case: Case) -> None:
        while case.scored < len(case.steps):
            count, read = len(case.steps), case.prompt + case.end
            known = {"key": case.key, "count": count}
            try:
                self._tell({**known, "scores": await self._score(case, read)})
                case.read = read
            except RewardGoneError as gone:
                self._tell({**known, "fault": str(gone)})
            except Exception as error:  # a stranger's code, `spends` among it
                self._tell({**known, "fault": f"{type(error).__name__}: {error}"})
            case.scored = count
            self._scorer.trim(KNOWN)

    async def _score(self, case: Case, read: int) -> list[float]:
        step, shared = len(case.steps) - 1, self._purses[case.group][0]
        cost = self._scorer.reward.spends(case.read, read - case.read)
        if shared.left is not None and cost > shared.left:
            left = f"{shared.left} of {self._most} reward tokens are left (limits.reward_tokens)"
            raise RewardGoneError(f"{left}, and this step would cost {cost}")

        def paid(tokens: int) -> None:
            self._tell({"key": case.key, "step": step, "tokens": tokens})

        steps = bare_steps(case.steps, case.until)
        return list(await self._scorer.score(case.question, steps, cost, Account(shared, paid)))


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
