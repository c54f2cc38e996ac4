"""DVTS on the scripted engine."""

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_search import solve

from midstep.searching import Path
from midstep.testing.scripted import ScriptedEngine, value
from midstep_dvts import Dvts, best


def test_each_subtree_keeps_its_own_best() -> None:
    """Golden C6.dvts: of equal scores the first; a dead one is never the best."""
    groups = [[0.2, 0.9, 0.1, 0.9], [0.5, 0.4, 0.3, 0.2]]
    assert [best([Path((i,), value=s) for i, s in enumerate(group)]) for group in groups] == [1, 0]
    assert best([Path((0,), value=0.9, ended="fault"), Path((1,), value=0.1)]) == 1
    assert best([Path((0,), ended="fault")]) is None


def test_wide_subtrees_find_the_optimum_each() -> None:
    solved = solve(Dvts, trees=3, m=64)
    trees = [solved.result.candidates[i * 64 : (i + 1) * 64] for i in range(3)]
    assert [max(value(c.text) for c in tree) for tree in trees] == [1.0, 1.0, 1.0]


def test_subtrees_do_not_compete() -> None:
    """A subtree's candidates are the same whatever the others are."""
    two, four = solve(Dvts, trees=2, m=4).result.candidates, solve(Dvts, trees=4, m=4).result.candidates
    assert four[:8] == two
    assert len(four) == 16


def test_no_subtree_waits_for_another() -> None:
    """One whose calls hang until the others are done does not keep them from their end."""
    slow = solve(Dvts, ScriptedEngine(shuffle=2), trees=4, m=2)
    asked = [call.ids for call in slow.engine.calls]
    lengths = [len(ids) for ids in asked]
    assert lengths != sorted(lengths)  # in lock-step rounds, by depth, they would nearly be
    assert slow.outcome == solve(Dvts, trees=4, m=2).outcome


def test_a_subtree_that_dies_stops_no_other() -> None:
    solved = solve(Dvts, ScriptedEngine(dies=lambda call: "lost" if call.seed % 2 == 0 else None), trees=8, m=2)
    assert 0 < len(solved.result.candidates) < 16


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(0, 5), st.integers(0, 2))
def test_no_budget_is_exceeded_and_the_order_of_arrival_changes_nothing(
    budget: int, shuffle: int, lookahead: int
) -> None:
    asked = {"budget": budget, "trees": 3, "m": 2, "lookahead": lookahead}
    assert solve(Dvts, ScriptedEngine(shuffle=shuffle), **asked).outcome == solve(Dvts, **asked).outcome
