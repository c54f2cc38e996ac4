"""Asks a reward: in batches, once for each text, with patience, and with a word for when it is gone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from ..beside import Reward
from ..methods import Params
from .budget import Purse, Spent

Steps = tuple[str, ...]
# What may stand for a reward: prompt and steps to one score per step, or to one score of the text so far.
Scoring = Callable[[str, Sequence[str]], Any]


class Patience(Params):
    """How long a reward is waited for, and what becomes of an answer that it does not score."""

    timeout: float = Field(30.0, gt=0, description="Seconds that one try may take.")
    tries: int = Field(3, ge=1, le=20, description="Tries before an answer counts as not scored.")
    backoff: float = Field(0.5, ge=0, description="Seconds before the second try; doubled before each later one.")
    trips: int = Field(5, ge=1, description="Failed tries in a row after which the reward is left alone.")
    rest: float = Field(30.0, ge=0, description="Seconds that it is left alone; then one try may bring it back.")
    batch: int = Field(32, ge=1, description="Answers in one call.")
    wait: float = Field(0.0, ge=0, description="Seconds to wait for more answers before a call.")
    gone: Literal["fail", "drop"] | float = Field(
        "fail", description="Not scored: the search fails, the answer is dropped, or it has this score."
    )


class RewardGoneError(RuntimeError):
    """The reward did not score an answer, whatever was tried."""


class CallableReward(Reward):
    """A Python function, sync or async, as a reward; a sync one runs in a thread, so that nothing waits for it.

    Args:
        function: (prompt, steps) to one score per step, or to one score of the text so far: then it is called for each
            text once. It is taken to spend no tokens.
    """

    name = "callable"

    def __init__(self, function: Scoring) -> None:
        super().__init__()
        self._function = function
        self._known: dict[tuple[str, Steps], float] = {}

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score the steps."""
        if not steps:
            return []
        found = await self._call(prompt, steps)
        if not isinstance(found, int | float):
            return list(found)
        self._known[prompt, tuple(steps)] = float(found)
        for count in range(1, len(steps)):
            begin = (prompt, tuple(steps[:count]))
            if begin not in self._known:
                self._known[begin] = float(await self._call(*begin))
        return [self._known[prompt, tuple(steps[: i + 1])] for i in range(len(steps))]

    def spends(self, known: int, new: int) -> int:
        """Return 0."""
        return 0

    async def _call(self, prompt: str, steps: Sequence[str]) -> Any:
        found = await asyncio.to_thread(self._function, prompt, list(steps))
        return await found if isinstance(found, Awaitable) else found


@dataclass
class _Asked:
    """One answer that waits for its scores."""

    prompt: str
    steps: Steps
    cost: int
    purse: Purse
    answer: asyncio.Future[list[float]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Scorer:
    """A reward with everything around it; one for each search, or one for many.

    Args:
        reward: what scores.
        patience: how it is asked.
        unit: whether a score outside 0 to 1 is a fault.
        spent: where its tokens are counted.
    """

    def __init__(self, reward: Reward, patience: Patience, spent: Spent, unit: bool = False) -> None:
        self.reward, self.patience, self._spent, self._unit = reward, patience, spent, unit
        self._known: dict[tuple[str, Steps], float] = {}
        self._asked: dict[tuple[str, Steps], _Asked] = {}
        self._queue: list[_Asked] = []
        self._running: set[asyncio.Task[None]] = set()
        self._failed, self._until, self._last = 0, 0.0, ""

    async def score(self, prompt: str, steps: Sequence[str], cost: int, purse: Purse) -> tuple[float, ...]:
        """Return one score per step; what was scored before, as an answer or as its beginning, is not sent again.

        The purse pays all the same: else what a branch may spend would depend on which one had asked first.

        Raises:
            RewardGoneError: there is none, and the policy names no score.
        """
        whole = tuple(steps)
        begins = [(prompt, whole[: i + 1]) for i in range(len(whole))]
        if all(begin in self._known for begin in begins):
            purse.take(cost, reward=True)
            return tuple(self._known[begin] for begin in begins)
        asked = self._asked.get((prompt, whole))
        if asked is not None:
            purse.take(cost, reward=True)
        else:
            asked = self._asked[prompt, whole] = _Asked(prompt, whole, cost, purse)
            self._queue.append(asked)
            if len(self._queue) == 1:
                self._start()
        try:
            return tuple(await asyncio.shield(asked.answer))
        except RewardGoneError:
            if isinstance(self.patience.gone, str):
                raise
            return tuple(self._known.get(begin, self.patience.gone) for begin in begins)

    def trim(self, most: int) -> None:
        """Forget the oldest scores beyond `most`: for what lives as long as a server."""
        for begin in list(self._known)[: max(len(self._known) - most, 0)]:
            del self._known[begin]

    async def close(self) -> None:
        """End every call that is under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self) -> None:
        task = asyncio.create_task(self._flush())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _flush(self) -> None:
        await asyncio.sleep(self.patience.wait)
        queue, self._queue = self._queue, []
        size = self.patience.batch
        await asyncio.gather(*(self._batch(queue[i : i + size]) for i in range(0, len(queue), size)))

    async def _batch(self, batch: list[_Asked]) -> None:
        fault = "no try was made"
        try:
            for number in range(self.patience.tries):
                if number:
                    await asyncio.sleep(self.patience.backoff * 2 ** (number - 1))
                if self._failed >= self.patience.trips and time.monotonic() < self._until:
                    fault = f"it failed {self._failed} times in a row and is left alone; the last time: {self._last}"
                    break
                batch, fault = await self._try([a for a in batch if self._pays(a)], fault)
                if not batch:
                    return
        finally:
            for asked in batch:
                self._fail(asked, fault)

    async def _try(self, batch: list[_Asked], before: str) -> tuple[list[_Asked], str]:
        """Ask once; return who has no scores yet, and why."""
        if not batch:
            return [], before
        try:
            call = self.reward.score_many([(asked.prompt, asked.steps) for asked in batch])
            found = await asyncio.wait_for(call, self.patience.timeout)
        except TimeoutError:
            fault = f"no answer within {self.patience.timeout} s"
        except Exception as error:  # a stranger's code, or a server: whatever it raises, the search must know
            fault = f"{type(error).__name__}: {error}"
        else:
            faults = [
                self._settle(asked, scores) for asked, scores in zip(batch, [*found, *[[]] * len(batch)], strict=False)
            ]
            if not any(faults):
                self._failed = 0
                return [], ""
            batch = [asked for asked, fault in zip(batch, faults, strict=True) if fault]
            fault = next(filter(None, faults))
        self._failed, self._last = self._failed + 1, fault
        self._until = time.monotonic() + self.patience.rest
        return batch, fault

    def _pays(self, asked: _Asked) -> bool:
        if asked.purse.take(asked.cost, reward=True):
            self._spent.reward += asked.cost
            return True
        self._fail(asked, f"no {asked.cost} tokens are left for another try, of budget or limits.reward_tokens")
        return False

    def _settle(self, asked: _Asked, scores: Sequence[float]) -> str:
        """Hand out the scores of one answer; return what is wrong with them, or nothing."""
        if len(scores) != len(asked.steps):
            return f"{len(scores)} scores for {len(asked.steps)} steps"
        bad = [score for score in scores if not _is_score(score) or (self._unit and not 0 <= score <= 1)]
        if bad:
            return f"a score of {bad[0]!r}" + (", and this search takes 0 to 1" if self._unit else "")
        for count, score in enumerate(scores, 1):
            self._known.setdefault((asked.prompt, asked.steps[:count]), float(score))
        self._asked.pop((asked.prompt, asked.steps), None)
        if not asked.answer.done():
            asked.answer.set_result([self._known[asked.prompt, asked.steps[: i + 1]] for i in range(len(scores))])
        return ""

    def _fail(self, asked: _Asked, fault: str) -> None:
        self._asked.pop((asked.prompt, asked.steps), None)
        if not asked.answer.done():
            asked.answer.set_exception(RewardGoneError(f"the reward {self.reward.name!r} gave no score: {fault}"))
            asked.answer.exception()  # looked at: whoever waited may be gone


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
