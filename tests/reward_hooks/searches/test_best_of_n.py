"""Best of n on the scripted engine."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_search import solve

from midstep.searching import aggregate
from midstep.testing.scripted import ScriptedEngine, value
from midstep_best_of_n import BestOfN


@pytest.mark.parametrize(
    ("how", "score"), [("min", 0.8), ("prod", 0.684), ("last", 0.95), ("mean", 0.8833333333333333), ("max", 0.95)]
)
def test_the_aggregations_of_one_answers_scores(how: str, score: float) -> None:
    """Golden C1."""
    assert aggregate([0.9, 0.8, 0.95], how) == pytest.approx(score)
    assert aggregate([], how) == -1.0


def test_the_best_is_the_one_that_the_reward_likes_best() -> None:
    solved = solve(BestOfN, n=64)
    values = [value(candidate.text) for candidate in solved.result.candidates]
    assert len(set(solved.result.candidates)) > 50
    assert value(solved.result.text) == max(values) > sum(values) / len(values) + 0.2
    assert list(solved.result.weights) == pytest.approx(values)
    assert len(solved.engine.calls) == 64
    assert len({call.seed for call in solved.engine.calls}) == 64


def test_aggregations_choose_differently() -> None:
    low = solve(BestOfN, n=64, score="min").result.best
    assert min(low.scores) == max(min(c.scores) for c in solve(BestOfN, n=64).result.candidates)


def test_an_answer_that_dies_stops_no_other() -> None:
    solved = solve(BestOfN, ScriptedEngine(dies=lambda call: "lost" if call.seed % 2 else None), n=16)
    assert 0 < len(solved.result.candidates) < 16
    whole = solve(BestOfN, n=16)
    assert set(solved.result.candidates) < set(whole.result.candidates)


def test_what_was_cut_off_weighs_nothing_beside_what_ended() -> None:
    result = solve(BestOfN, n=32, max_tokens=14).result
    assert {candidate.ended for candidate in result.candidates} == {"end", "length"}
    for candidate, weight in zip(result.candidates, result.weights, strict=True):
        assert weight == (candidate.score if candidate.ended == "end" else 0.0)


@settings(max_examples=30, deadline=None)
@given(budget=st.integers(1, 600), shuffle=st.integers(0, 5), n=st.integers(1, 8))
def test_no_budget_is_exceeded_and_the_order_of_arrival_changes_nothing(budget: int, shuffle: int, n: int) -> None:
    solved = solve(BestOfN, ScriptedEngine(shuffle=shuffle), budget=budget, n=n)
    assert solved.outcome == solve(BestOfN, budget=budget, n=n).outcome
