"""Rewards asked with patience: batches, the cache, tries, the breaker, and the policy when they are gone."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

import midstep
from midstep.searching import CallableReward, Patience, Purse, RewardGoneError, Scorer, Spent

QUICK = {"backoff": 0.0, "rest": 60.0}


class Recording(midstep.Reward):
    """Scores a step by its length, and fails as it is told, call by call."""

    name = "recording"

    def __init__(self, *faults: Any) -> None:
        self.faults, self.calls = list(faults), list[list[Any]]()

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        return [1 / (1 + len(step)) for step in steps]

    async def score_many(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        self.calls.append([tuple(steps) for _, steps in asked])
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault == "sleep":
            await asyncio.sleep(30)
        return fault if isinstance(fault, list) else await super().score_many(asked)


def asked(
    reward: midstep.Reward, *steps: Sequence[str], purse: Purse | None = None, unit: bool = False, **patience: Any
):
    """Return scorer, spent, and the scores of several answers asked at once, or their errors."""

    async def run() -> Any:
        spent = Spent()
        scorer = Scorer(reward, Patience(**{**QUICK, **patience}), spent, unit)
        own = purse or Purse(None)
        found = await asyncio.gather(*(scorer.score("?", s, 10, own) for s in steps), return_exceptions=True)
        return scorer, spent, found

    return asyncio.run(run())


def test_answers_asked_at_once_go_in_one_call_and_equal_ones_once() -> None:
    reward = Recording()
    _, spent, found = asked(reward, ["a"], ["a", "bb"], ["a"], ["ccc"], batch=2)
    assert reward.calls == [[("a",), ("a", "bb")], [("ccc",)]]
    assert found == [(0.5,), (0.5, 1 / 3), (0.5,), (0.25,)]
    assert spent.reward == 30


def test_what_was_scored_and_its_beginnings_are_not_sent_again() -> None:
    async def run() -> None:
        reward, spent = Recording(), Spent()
        scorer = Scorer(reward, Patience(), spent)
        await scorer.score("?", ["a", "bb", "c"], 10, Purse(None))
        assert await scorer.score("?", ["a", "bb"], 10, Purse(None)) == (0.5, 1 / 3)
        assert await scorer.score("?", ["a", "bb", "c"], 10, Purse(None)) == (0.5, 1 / 3, 0.5)
        assert len(reward.calls) == 1
        await scorer.score("another question", ["a"], 10, Purse(None))
        assert len(reward.calls) == 2
        assert spent.reward == 20

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (OSError("refused"), "OSError: refused"),
        ("sleep", "no answer within 0.05 s"),
        ([[0.5, 0.5]], "2 scores for 1 steps"),
        ([], "0 scores for 1 steps"),
        ([[float("nan")]], "a score of nan, and this search takes 0 to 1"),
        ([["good"]], "a score of 'good', and this search takes 0 to 1"),
        ([[1.5]], "a score of 1.5, and this search takes 0 to 1"),
    ],
)
def test_each_fault_is_tried_again_and_then_told(fault: Any, says: str) -> None:
    reward = Recording(fault)
    _, spent, found = asked(reward, ["a"], unit=True, timeout=0.05)
    assert (found, len(reward.calls), spent.reward) == ([(0.5,)], 2, 20)
    reward = Recording(*[fault] * 3)
    _, _, (error,) = asked(reward, ["a"], unit=True, timeout=0.05)
    assert isinstance(error, RewardGoneError)
    assert str(error) == f"the reward 'recording' gave no score: {says}"
    assert len(reward.calls) == 3


def test_one_bad_answer_of_a_batch_does_not_lose_the_others() -> None:
    reward = Recording(*[[[0.5], [2.0, 2.0], [0.25]], [[3.0, 3.0]], [[4.0, 4.0]]])
    _, _, found = asked(reward, ["a"], ["b"], ["c"])
    assert found[::2] == [(0.5,), (0.25,)]
    assert isinstance(found[1], RewardGoneError)
    assert reward.calls[1:] == [[("b",)], [("b",)]]


def test_the_policy_may_be_a_score() -> None:
    _, _, found = asked(Recording(*[OSError()] * 3), ["a", "b"], gone=0.125)
    assert found == [(0.125, 0.125)]


def test_a_reward_that_keeps_failing_is_left_alone_and_then_tried_again() -> None:
    async def run() -> None:
        reward = Recording(*[OSError("down")] * 4)
        scorer = Scorer(reward, Patience(tries=2, backoff=0.0, trips=4, rest=0.2), Spent())

        async def fails(step: str) -> str:
            with pytest.raises(RewardGoneError) as caught:
                await scorer.score("?", [step], 1, Purse(None))
            return str(caught.value)

        await fails("a")
        await fails("b")
        began = time.monotonic()
        assert "failed 4 times in a row and is left alone" in await fails("c")
        assert time.monotonic() - began < 0.1
        assert len(reward.calls) == 4
        await asyncio.sleep(0.25)
        assert await scorer.score("?", ["d"], 1, Purse(None)) == (0.5,)

    asyncio.run(run())


def test_the_wait_doubles_before_each_try() -> None:
    began = time.monotonic()
    asked(Recording(*[OSError()] * 2), ["a"], backoff=0.05)
    assert 0.15 <= time.monotonic() - began < 1


def test_a_try_that_the_budget_does_not_pay_is_not_made() -> None:
    purse, reward = Purse(25), Recording(*[OSError()] * 3)
    _, spent, (error,) = asked(reward, ["a"], purse=purse)
    assert "no 10 tokens are left for another try" in str(error)
    assert (purse.left, spent.reward, len(reward.calls)) == (5, 20, 2)


def test_functions_are_rewards_sync_or_async_per_step_or_of_the_text_so_far() -> None:
    async def slow(prompt: str, steps: Sequence[str]) -> list[float]:
        await asyncio.sleep(0)
        return [0.5] * len(steps)

    texts: list[list[str]] = []

    def outcome(prompt: str, steps: list[str]) -> float:
        texts.append(list(steps))
        return len(steps) / 4

    async def run() -> None:
        assert await CallableReward(slow).score("?", ["a", "b"]) == [0.5, 0.5]
        reward = CallableReward(outcome)
        assert await reward.score("?", ["a", "b", "c"]) == [0.25, 0.5, 0.75]
        assert await reward.score("?", ["a", "b", "c", "d"]) == [0.25, 0.5, 0.75, 1.0]
        assert texts == [["a", "b", "c"], ["a"], ["a", "b"], ["a", "b", "c", "d"]]
        assert reward.spends(10, 10) == 0

    asyncio.run(run())


def test_a_slow_function_blocks_nobody() -> None:
    async def run() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await CallableReward(lambda prompt, steps: time.sleep(0.2) or 0.5).score("?", ["a"])
        ticking.cancel()
        assert ticks >= 5

    asyncio.run(run())
