"""What a reward's process does with the steps that it is sent: it asks about them, and tells the scores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..searching.boundary import bare_steps
from ..searching.budget import Purse
from ..searching.scoring import RewardGoneError, Scorer

Tell = Callable[[dict[str, Any]], None]

KNOWN = 65_536  # scores that are kept of texts that may come again


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
