"""The laws of the methods that run beside the engine: rewards, selectors and searches."""

from __future__ import annotations

import asyncio
import math

from ..beside import Candidate, Reward, Search, Selector
from ..configuration import Limits
from ..methods import Params
from ..searching import Patience, Problem, Result, Scorer, Spent
from .scripted import PROMPT, NumberReward, ScriptedEngine

STEPS = ("First, add 2 and 3.", "That gives 5.", "The answer is 5.")


def check_reward(method: type[Reward], params: Params | None = None) -> None:
    """Laws: one finite score per step, the same each time, whatever comes behind it, and none for no steps."""

    async def asked() -> list[list[float]]:
        reward = method(params)
        try:
            many = [("What is 2 + 3?", steps) for steps in (STEPS, STEPS, STEPS[:2], ())]
            return [await reward.score(*many[0]), *(await reward.score_many(many))[1:]]
        finally:
            await reward.close()

    first, second, begin, none = asyncio.run(asked())
    assert len(first) == len(STEPS), f"{method.name}: {len(first)} scores for {len(STEPS)} steps"
    assert all(isinstance(s, float) and math.isfinite(s) for s in first), (
        f"{method.name}: scores {first} are not finite floats"
    )
    assert first == second, f"{method.name}: the same steps were scored {first} and then {second}"
    assert begin == first[:2], f"{method.name}: two steps alone were scored {begin}, and {first[:2]} before a third"
    assert none == [], f"{method.name}: no steps were scored {none}"


def check_selector(method: type[Selector], params: Params) -> None:
    """Laws: one finite weight >= 0 per candidate, whatever their order, and none for no candidates."""
    candidates = [
        Candidate("The answer is 5.", (0.5, 0.75), -3.0, score=0.75),
        Candidate("It is 6.", (0.25, 0.125), -4.0, score=0.125),
        Candidate("5", (0.9, 0.5), -1.0, score=0.5),
    ]
    weights = method().weigh(candidates, params)
    assert len(weights) == len(candidates), f"{method.name}: {len(weights)} weights for {len(candidates)} candidates"
    assert all(math.isfinite(w) and w >= 0 for w in weights), (
        f"{method.name}: weights {weights} are not finite and >= 0"
    )
    assert method().weigh(candidates[::-1], params) == weights[::-1], (
        f"{method.name}: weights depend on the order of the candidates"
    )
    none = method().weigh([], params)
    assert none == [], f"{method.name}: no candidates were weighed {none}"


def check_search(method: type[Search], params: Params) -> None:
    """Laws: one seed, one result, whatever arrives first; every token counted, none beyond the limits, none to come.

    The limits: the budget, the reward's tokens, and the continuations in flight that `width` tells.
    """
    results, width = [], method.width(params)
    for shuffle, budget, reading in ((None, None, 10**6), (1, None, 10**6), (2, 400, 300), (3, 400, 300)):
        engine = ScriptedEngine(shuffle=shuffle)
        problem = scripted(engine, method, budget, limits=Limits(reward_tokens=reading))
        result = asyncio.run(searched(method, problem, params))
        spent = problem.spent
        assert spent.engine == engine.tokens, (
            f"{method.name}: reports {spent.engine} tokens, the engine gave {engine.tokens}"
        )
        assert budget is None or spent.engine + spent.reward <= budget, (
            f"{method.name}: {spent.engine} tokens of the engine and {spent.reward} of the reward, budget {budget}"
        )
        assert spent.reward <= reading, f"{method.name}: {spent.reward} tokens of the reward, allowed: {reading}"
        assert engine.widest <= width, f"{method.name}: {engine.widest} continuations in flight, its width is {width}"
        assert engine.running == 0, f"{method.name}: {engine.running} continuations still run when it is done"
        assert len(result.weights) == len(result.candidates) > 0, f"{method.name}: {len(result.weights)} weights"
        assert all(math.isfinite(w) and w >= 0 for w in result.weights), f"{method.name}: weights {result.weights}"
        results.append((result.candidates, result.weights))
    assert results[0] == results[1], f"{method.name}: one seed gave two results"
    assert results[2] == results[3], f"{method.name}: one seed gave two results under a budget"


def scripted(
    engine: ScriptedEngine,
    method: type[Search],
    budget: int | None = None,
    seed: int = 7,
    limits: Limits | None = None,
) -> Problem:
    """Return a problem on the scripted engine, with its reward."""
    spent = Spent()
    scorer = Scorer(NumberReward(engine.best), Patience(), spent, method.unit_scores)
    return Problem(engine, PROMPT, "?", scorer, seed=seed, budget=budget, spent=spent, limits=limits)


async def searched(method: type[Search], problem: Problem, params: Params) -> Result:
    """Run a search and end what it left."""
    try:
        return await method().run(problem, params)
    finally:
        await problem.close()
