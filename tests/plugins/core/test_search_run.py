"""`midstep.search`: names, refusals, budgets, traces."""

import asyncio
import json
from typing import Any

import pytest

import midstep
from midstep.searching import NothingFoundError, RewardGoneError
from midstep.testing.scripted import NumberReward, ScriptedEngine, value


def search(engine: ScriptedEngine | None = None, **asked: Any) -> midstep.Result:
    usual: dict[str, Any] = {"reward": NumberReward(), "seed": 3}
    return asyncio.run(midstep.search(engine or ScriptedEngine(), "How many?", **{**usual, **asked}))


def test_one_call_searches_and_tells_what_it_spent() -> None:
    engine, reward = ScriptedEngine(), NumberReward()
    result = search(engine, particle_filter={"n": 8}, reward=reward)
    assert value(result.text) == result.best.score
    assert result.spent.engine == engine.tokens > 0
    assert result.spent.calls == len(engine.calls) == 32
    assert {question for question, _ in reward.calls} == {"How many?"}
    assert all("\n\n" not in step for _, steps in reward.calls for step in steps)


def test_a_function_is_a_reward_and_spends_nothing() -> None:
    result = search(reward=lambda prompt, steps: 0.5, best_of_n={"n": 3})
    assert (result.weights, result.spent.reward) == ((0.5, 0.5, 0.5), 0)


def test_without_a_reward_all_weigh_the_same() -> None:
    result = search(reward=None, best_of_n={"n": 3})
    assert (result.weights, result.best.score) == ((1.0, 1.0, 1.0), None)


def test_a_trace_is_json_and_tells_each_nodes_fate() -> None:
    trace = json.loads(json.dumps(search(step_beam={"beams": 2, "m": 2}).trace))
    assert (trace["version"], trace["search"], trace["params"]["m"], trace["seed"]) == (1, "step_beam", 2, 3)
    assert {node["fate"] for node in trace["nodes"].values()} == {"kept", "pruned", "end"}
    assert all(node["why"] for node in trace["nodes"].values() if node["fate"] == "pruned")
    assert all(name.rpartition(".")[0] in {"", *trace["nodes"]} for name in trace["nodes"])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "0 names for a search: none; name exactly one"),
        ({"rebase": {}, "dvts": {}}, "2 names for a search: rebase, dvts"),
        (
            {"rebase": {"width": 0}},
            "rebase.width = 0: input should be greater than or equal to 1; parameters of rebase",
        ),
        ({"rebase": {"widht": 4}}, "rebase.widht = 4: extra inputs are not permitted"),
        ({"min_p": {}}, "min_p is no search"),
        ({"mcts": {}}, "no method named 'mcts' is installed"),
        ({"rebase": {}, "reward": None}, "rebase goes by a reward, and none is named"),
        ({"rebase": {}, "reward": "min_p"}, "min_p is no reward"),
        ({"rebase": {}, "budget": 0}, "budget = 0; allowed: 1 or more"),
        ({"rebase": {}, "separator": ""}, "separator = ''"),
        ({"rebase": {}, "separator": []}, r"separator = \[\]"),
        ({"rebase": {}, "selector": {"min_p": {}}}, "min_p is no selector"),
        ({"rebase": {}, "patience": {"gone": "maybe"}}, "patience.gone"),
    ],
)
def test_bad_calls_are_refused_before_anything_is_sent(asked: dict[str, Any], says: str) -> None:
    engine = ScriptedEngine()
    with pytest.raises(ValueError, match=says):
        search(engine, **asked)
    assert engine.calls == []


def test_a_search_whose_branches_are_all_lost_says_why() -> None:
    with pytest.raises(NothingFoundError, match="all 4 answers were lost: ConnectionError: no server"):
        search(ScriptedEngine(dies=lambda call: "no server"), rebase={"width": 4})


class Mute(ScriptedEngine):
    """Tells the text of no answer from the third on: its server is gone, say."""

    told = 0

    async def decode(self, ids: Any) -> str:
        self.told += 1
        if self.told >= 3:
            raise ConnectionError("gone")
        return await super().decode(ids)


def test_a_branch_whose_text_is_not_told_is_lost_alone() -> None:
    result = search(Mute(), best_of_n={"n": 4})
    assert len(result.candidates) == 2
    assert [node["why"] for node in result.trace["nodes"].values() if node["fate"] == "fault"] == [
        "ConnectionError: gone"
    ] * 2


class Dead(NumberReward):
    """Fails from its fourth call on."""

    async def score_many(self, asked: Any) -> Any:
        if len(self.calls) >= 4:
            raise OSError("gone")
        return await super().score_many(asked)


@pytest.mark.parametrize("plan", ["best_of_n", "step_beam", "particle_filter", "dvts", "rebase", "early_rejection"])
def test_a_reward_that_dies_ends_the_search_and_leaves_nothing_behind(plan: str) -> None:
    engine = ScriptedEngine(shuffle=1)
    with pytest.raises(RewardGoneError, match="OSError: gone"):
        search(engine, reward=Dead(), patience={"backoff": 0.0, "batch": 1, "tries": 2}, **{plan: {}})
    assert engine.running == 0


def test_a_reward_that_dies_may_be_a_score_instead() -> None:
    result = search(reward=Dead(), patience={"backoff": 0.0, "gone": 0.25}, rebase={"width": 8})
    assert {candidate.ended for candidate in result.candidates} == {"end"}


def test_a_search_that_is_cancelled_leaves_nothing_behind() -> None:
    async def run() -> None:
        engine = ScriptedEngine(steps=1000)
        plan = {"max_tokens": 100_000}
        running = asyncio.create_task(midstep.search(engine, [1000], best_of_n=plan, reward=NumberReward()))
        while engine.tokens < 100:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert engine.running == 0

    asyncio.run(run())
