"""A server's limits bind a search: its width, and what its reward may read."""

import asyncio
from typing import Any

import pytest

import midstep
from midstep.configuration import Limits
from midstep.testing.scripted import NumberReward, ScriptedEngine

WIDE: dict[str, dict[str, Any]] = {
    "best_of_n": {"n": 9},
    "step_beam": {"beams": 3, "m": 3},
    "particle_filter": {"n": 9},
    "dvts": {"trees": 3, "m": 3},
    "rebase": {"width": 9},
    "early_rejection": {"beams": 3, "m": 3, "tau": 2},
}


def search(engine: ScriptedEngine, limits: Limits | None, **asked: Any) -> midstep.Result:
    usual: dict[str, Any] = {"reward": NumberReward(), "seed": 3, "limits": limits}
    return asyncio.run(midstep.search(engine, "How many?", **{**usual, **asked}))


@pytest.mark.parametrize("name", WIDE)
def test_a_search_that_is_too_wide_is_refused_before_anything_is_sent(name: str) -> None:
    engine = ScriptedEngine()
    says = rf"{name} .* keeps 9 continuations in flight; allowed \(limits.width\): at most 8"
    with pytest.raises(ValueError, match=says):
        search(engine, Limits(width=8), **{name: WIDE[name]})
    assert engine.calls == []
    search(engine, Limits(width=9), **{name: WIDE[name]})
    assert 1 < engine.widest <= 9


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("shuffle", [1, 2])
def test_a_reward_reads_no_token_beyond_its_limit(name: str, shuffle: int) -> None:
    """What it may not read ends branches, the same ones in any order of arrival, and the trace says why."""
    unlimited = search(ScriptedEngine(), Limits(), **{name: WIDE[name]})
    for reading in (120, 180):
        results = [
            search(ScriptedEngine(shuffle=s), Limits(reward_tokens=reading), **{name: WIDE[name]})
            for s in (None, shuffle)
        ]
        assert results[0].candidates == results[1].candidates
        assert 0 < results[0].spent.reward <= reading < unlimited.spent.reward
        short = [node["why"] for node in results[0].trace["nodes"].values() if node["fate"] == "budget"]
        assert set(short) == {f"limits.reward_tokens = {reading}"}


def test_a_try_again_is_paid_from_the_limit_too() -> None:
    class Failing(NumberReward):
        async def score_many(self, asked: Any) -> Any:
            raise OSError("gone")

    result = search(
        ScriptedEngine(),
        Limits(reward_tokens=300),
        best_of_n={"n": 3, "max_tokens": 20},
        reward=Failing(),
        patience={"backoff": 0.0, "gone": 0.5, "tries": 20, "trips": 100},
    )
    assert 200 < result.spent.reward <= 300


def test_a_limit_that_pays_for_no_score_is_refused() -> None:
    engine = ScriptedEngine()
    with pytest.raises(ValueError, match=r"'number' reads 10 tokens .* allowed \(limits.reward_tokens\): 39 in all"):
        search(engine, Limits(reward_tokens=39), rebase={"width": 4})
    assert engine.calls == []
    assert search(engine, Limits(reward_tokens=0), reward=lambda prompt, steps: 0.5, best_of_n={"n": 2}).text


def test_which_bound_ended_a_branch_is_told() -> None:
    result = search(ScriptedEngine(), Limits(reward_tokens=10**6), budget=400, rebase={"width": 8})
    whys = {node["why"] for node in result.trace["nodes"].values() if node["fate"] == "budget"}
    assert whys == {"budget = 400"}
