"""Particle filtering on the scripted engine."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_search import solve

from midstep.searching import Path, odds
from midstep.testing.scripted import ScriptedEngine, value
from midstep_particle_filter import ParticleFilter, effective, multinomial, systematic, weigh

SCORES = [0.9, 0.6, 0.5, 0.1]


def test_weights_are_odds() -> None:
    """Goldens C4.pf_weights_T1 and C4.ess; a score of 0 or 1 has a finite weight."""
    weights = odds(SCORES, 1.0)
    total = sum(r / (1 - r) for r in SCORES)
    assert weights == pytest.approx([r / (1 - r) / total for r in SCORES])
    assert weights == pytest.approx([0.775120, 0.129187, 0.086124, 0.009569], abs=1e-6)
    assert effective(weights) == pytest.approx(1 / sum(w * w for w in weights))
    assert all(math.isfinite(w) for w in odds([0.0, 1.0], 0.5))


def test_systematic_resampling() -> None:
    """Golden C4.systematic(u=.5)."""
    assert systematic(odds(SCORES, 1.0), 0.5) == [0, 0, 0, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
def test_systematic_resampling_rounds_the_expected_number_and_never_draws_a_dead_one(
    scores: list[float], u: float
) -> None:
    paths = [Path((i,), value=score, ended="fault" if i % 3 == 2 else None) for i, score in enumerate(scores)]
    weights = weigh(paths, 1.0)
    assert sum(weights) == pytest.approx(1)
    drawn = systematic(weights, u)
    assert len(drawn) == len(scores)
    for i, weight in enumerate(weights):
        assert abs(drawn.count(i) - len(scores) * weight) < 1 + 1e-6
    assert not {i for i, path in enumerate(paths) if path.dead} & {*drawn, *multinomial(weights, [u, 0.0])}


@pytest.mark.parametrize("resample", ["systematic", "multinomial"])
def test_many_particles_come_close_to_the_optimum(resample: str) -> None:
    solved = solve(ParticleFilter, n=64, resample=resample)
    assert value(solved.result.text) == 1.0
    mean = sum(value(c.text) for c in solved.result.candidates) / 64
    assert mean > 0.8  # plain samples: 0.5


def test_finished_particles_are_resampled_too_and_copies_stay_finished() -> None:
    """Some answers have fewer steps where a number comes twice in a step; here all have as many: all end together."""
    solved = solve(ParticleFilter, n=8)
    assert {candidate.ended for candidate in solved.result.candidates} == {"end"}
    assert len(solved.engine.calls) == 8 * 4


def test_copies_draw_with_seeds_of_their_own() -> None:
    calls = solve(ParticleFilter, n=32, temperature=0.1).engine.calls
    assert len({(call.ids, call.seed) for call in calls}) == len(calls)
    assert len({call.ids for call in calls}) < len(calls) / 2


def test_without_need_nothing_is_resampled() -> None:
    assert "pruned" not in solve(ParticleFilter, n=8, ess=0.0).fates
    assert solve(ParticleFilter, n=8, ess=1.0).fates["pruned"] > 0


def test_the_answer_may_be_drawn_by_weight() -> None:
    chosen = {
        solve(ParticleFilter, n=8, choose="sample", temperature=5.0, seed=s).result.weights.index(1.0)
        for s in range(20)
    }
    assert len(chosen) > 3


def test_a_particle_that_dies_stops_no_other() -> None:
    solved = solve(ParticleFilter, ScriptedEngine(dies=lambda call: "lost" if call.seed % 3 == 0 else None), n=16)
    assert solved.result.best.ended == "end"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(0, 5), st.sampled_from([0.5, 1.0]))
def test_no_budget_is_exceeded_and_the_order_of_arrival_changes_nothing(budget: int, shuffle: int, ess: float) -> None:
    asked = {"budget": budget, "n": 5, "ess": ess}
    assert (
        solve(ParticleFilter, ScriptedEngine(shuffle=shuffle), **asked).outcome
        == solve(ParticleFilter, **asked).outcome
    )
