"""Early rejection on the scripted engine."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_search import solve

from midstep.searching import Call
from midstep.testing.scripted import ScriptedEngine, value
from midstep_early_rejection import Begun, EarlyRejection, Path, Purse, _weakness


def test_the_strongest_after_tau_tokens_are_finished() -> None:
    """Golden C7.early_reject: n = 8, m = 4; of equal scores the first."""
    scores = [0.31, 0.72, 0.55, 0.72, 0.12, 0.90, 0.44, 0.05]
    begun = [Begun(Path((i,), value=score), None, 0, False, Purse(None)) for i, score in enumerate(scores)]
    assert [one.path.name[0] for one in sorted(begun, key=_weakness)[: 8 // 4]] == [5, 1]


@pytest.mark.parametrize("pause", [False, True])
def test_a_wide_search_finds_the_optimum(pause: bool) -> None:
    """After 5 tokens the number of a step is there: with 64 of them the best is missed with a chance of 1e-8."""
    solved = solve(EarlyRejection, beams=1, m=64, tau=5, pause=pause)
    assert value(solved.result.text) == 1.0
    assert solved.result.best.ended == "end"


class Wordy(ScriptedEngine):
    """Says the number first and then a hundred words, so that what is cancelled has much to come."""

    def next(self, ids: tuple[int, ...], call: Call) -> int:
        """Return the next token."""
        token = super().next(ids, call)
        words = 0
        while ids[-1 - words] == 1:
            words += 1
        if ids[-1] >= 7 and ids[-1] < 1000:
            return 1
        if ids[-1] == 1:
            return 1 if words < 100 else 2
        return self.next(ids, Call(call.ids, call.seed + 1, 1)) if token == 1 else token


def test_the_weakest_are_cancelled_in_mid_step() -> None:
    """Their tokens are a part of a step's; the engine is not asked again for what was begun."""
    solved = solve(EarlyRejection, Wordy(steps=2), beams=2, m=4, tau=3)
    assert len(solved.engine.calls) == 2 * 8
    assert solved.fates["pruned"] == 2 * 6
    full = solve(EarlyRejection, Wordy(steps=2), beams=8, m=1, tau=3)
    assert solved.engine.tokens < full.engine.tokens * 0.6
    assert solved.problem.spent.discarded > 0


def test_a_pause_makes_no_token_beyond_tau_and_the_same_choice() -> None:
    """Of the first round, that is: what is resumed draws with a seed of its own."""
    ways = [solve(EarlyRejection, Wordy(steps=2), beams=2, m=4, tau=3, pause=pause) for pause in (False, True)]
    pruned = [
        {name for name, node in way.problem.traced()["nodes"].items() if node["fate"] == "pruned" and "." not in name}
        for way in ways
    ]
    assert pruned[0] == pruned[1]
    assert ways[1].problem.spent.discarded == 2 * 6 * 3


def test_a_step_that_dies_stops_no_other() -> None:
    dies = ScriptedEngine(dies=lambda call: "lost" if call.seed % 3 == 0 else None)
    assert solve(EarlyRejection, dies, tau=2).result.best.ended == "end"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(0, 5), st.integers(1, 8), st.booleans())
def test_no_budget_is_exceeded_and_the_order_of_arrival_changes_nothing(
    budget: int, shuffle: int, tau: int, pause: bool
) -> None:
    asked = {"budget": budget, "beams": 2, "m": 2, "tau": tau, "pause": pause, "step_tokens": 20}
    there = solve(EarlyRejection, ScriptedEngine(shuffle=shuffle), **asked)
    assert there.outcome == solve(EarlyRejection, **asked).outcome
