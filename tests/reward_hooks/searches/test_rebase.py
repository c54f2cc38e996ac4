"""REBASE on the scripted engine."""

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_search import solve

from midstep.testing.scripted import ScriptedEngine, value
from midstep_rebase import Rebase, shared


def test_the_width_is_shared_by_scores() -> None:
    """Goldens C3.rebase: rounded up from the best one on; of equal scores the later one gets more."""
    assert shared([0.9, 0.7, 0.7, 0.3, 0.1], 16, 0.2) == [9, 3, 4, 0, 0]
    assert shared([0.9, 0.7, 0.7, 0.3, 0.1], 4, 0.2) == [3, 0, 1, 0, 0]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.integers(1, 64), st.floats(0.01, 5))
def test_the_shares_add_up_to_the_width(scores: list[float], width: int, temperature: float) -> None:
    shares = shared(scores, width, temperature)
    assert sum(shares) == width
    assert min(shares) >= 0
    assert shares[max(range(len(scores)), key=lambda i: (scores[i], i))] >= 1


def test_a_wide_tree_finds_the_optimum() -> None:
    solved = solve(Rebase, width=64)
    assert value(solved.result.text) == 1.0
    assert len(solved.result.candidates) == 64
    assert {candidate.ended for candidate in solved.result.candidates} == {"end"}


def test_a_low_temperature_follows_the_best_and_a_high_one_all() -> None:
    cold, hot = solve(Rebase, width=16, temperature=0.01), solve(Rebase, width=16, temperature=100.0)
    assert cold.fates["pruned"] > hot.fates.get("pruned", 0)


def test_a_branch_that_dies_gives_its_place_back() -> None:
    solved = solve(Rebase, ScriptedEngine(dies=lambda call: "lost" if call.seed % 5 == 0 else None), width=16)
    depths = [name.count(".") for name in solved.problem.traced()["nodes"]]
    assert [depths.count(depth) for depth in range(4)] == [16, 16, 16, 16]
    assert solved.result.best.ended == "end"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(0, 5), st.integers(1, 6))
def test_no_budget_is_exceeded_and_the_order_of_arrival_changes_nothing(budget: int, shuffle: int, width: int) -> None:
    asked = {"budget": budget, "width": width}
    assert solve(Rebase, ScriptedEngine(shuffle=shuffle), **asked).outcome == solve(Rebase, **asked).outcome
