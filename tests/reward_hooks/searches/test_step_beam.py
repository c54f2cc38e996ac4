"""Beam search over steps on the scripted engine."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_search import solve

from midstep.searching import Path
from midstep.testing.scripted import ScriptedEngine, value
from midstep_step_beam import StepBeam, ranked, refill


def paths(*scores: float) -> list[Path]:
    return [Path((i,), value=score, steps=(str(i),)) for i, score in enumerate(scores)]


def test_the_best_ones_are_kept() -> None:
    """Golden C5.beam_keep: n = 8, m = 4; of equal scores the first."""
    kept = ranked(paths(0.1, 0.9, 0.3, 0.8, 0.8, 0.2, 0.5, 0.4))[: 8 // 4]
    assert sorted(path.name[0] for path in kept) == [1, 3]


def test_a_round_is_filled_up_with_copies() -> None:
    """Goldens C5.refill and C5.refill3."""
    two, three = paths(1, 3), paths(1, 3, 6)
    assert [path.name[0] for path in refill(two, 8)] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert [path.name[0] for path in refill(three, 8)] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_equal_ones_compete_as_one_and_dead_ones_do_not() -> None:
    same = [Path((i,), value=0.5, steps=("same",)) for i in range(3)]
    assert ranked([*same, Path((3,), steps=("dead",), ended="fault")], dedupe=True) == same[:1]


@pytest.mark.parametrize("form", ["sal", "alphamath"])
def test_a_wide_beam_finds_the_optimum(form: str) -> None:
    """With 64 draws of each step, the best number is missed with a chance of 1e-8."""
    solved = solve(StepBeam, form=form, beams=1 if form == "alphamath" else 8, m=64 if form == "alphamath" else 8)
    assert value(solved.result.text) == 1.0
    assert solved.result.best.ended == "end"


@pytest.mark.parametrize("form", ["sal", "alphamath"])
def test_a_round_has_as_many_as_the_form_says(form: str) -> None:
    """sal: n in each round. alphamath: n, then m of each of the n/m that go on, less the places of those that ended."""
    solved = solve(StepBeam, form=form, beams=2, m=4)
    nodes = [name for name in solved.problem.traced()["nodes"]]
    by_depth = [sum(name.count(".") == depth for name in nodes) for depth in range(4)]
    assert by_depth == [8, 8, 8, 8]
    assert solved.fates["kept"] == 3 * 2
    assert solved.fates["pruned"] == 3 * 6


def test_copies_draw_with_seeds_of_their_own() -> None:
    calls = solve(StepBeam, beams=2, m=8).engine.calls
    assert len({(call.ids, call.seed) for call in calls}) == len(calls)


def test_what_lies_ahead_is_scored_and_dropped() -> None:
    """Greedy steps of the scripted engine have its best number: with all ahead, a score tells what its step adds."""
    plain, ahead = solve(StepBeam, beams=2, m=2), solve(StepBeam, beams=2, m=2, lookahead=3)
    first = {name: node for name, node in ahead.problem.traced()["nodes"].items() if "." not in name}
    for name, node in first.items():
        own = plain.problem.traced()["nodes"][name]
        assert node["text"] == own["text"]
        assert node["scores"] == own["scores"]
        assert node["value"] == pytest.approx((own["value"] + 3) / 4)
    assert ahead.problem.spent.discarded > 0 == plain.problem.spent.discarded
    assert all(value(c.text) == pytest.approx(c.score) for c in ahead.result.candidates)


def test_a_beam_that_dies_stops_no_other() -> None:
    solved = solve(StepBeam, ScriptedEngine(dies=lambda call: "lost" if call.seed % 3 == 0 else None), beams=4)
    assert solved.result.best.ended == "end"
    assert solved.fates["fault"] > 3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(0, 5), st.sampled_from(["sal", "alphamath"]), st.integers(0, 2))
def test_no_budget_is_exceeded_and_the_order_of_arrival_changes_nothing(
    budget: int, shuffle: int, form: str, lookahead: int
) -> None:
    asked = {"budget": budget, "form": form, "beams": 2, "m": 2, "lookahead": lookahead}
    assert solve(StepBeam, ScriptedEngine(shuffle=shuffle), **asked).outcome == solve(StepBeam, **asked).outcome
