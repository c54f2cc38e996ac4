"""The laws of selectors and searches; those of rewards are in `rewards`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import permutations
from types import MappingProxyType

from ..beside import Candidate, Search, Selector
from ..configuration import Limits
from ..methods import Params
from ..searching import Call, Patience, Problem, Result, Scorer, Spent
from .scripted import PROMPT, NumberReward, ScriptedEngine


def weighs_each_candidate(method: type[Selector], params: Params) -> None:
    """Law: one finite weight >= 0 per candidate, whatever their order, and none for no candidates."""
    candidates = [
        Candidate("The answer is 5.", (0.5, 0.75), -3.0, score=0.75),
        Candidate("It is 6.", (0.25, 0.125), -4.0, score=0.125),
        Candidate("5", (0.9, 0.5), -1.0, score=0.5),
        Candidate("I do not know", (0.4,), -2.0, score=0.25),
    ]
    weights = _weights(method, candidates, params)
    assert len(weights) == len(candidates), f"{method.name}: {len(weights)} weights for {len(candidates)} candidates"
    assert all(math.isfinite(w) and w >= 0 for w in weights), (
        f"{method.name}: weights {weights} are not finite and >= 0"
    )
    for order in permutations(range(len(candidates))):
        permuted = _weights(method, [candidates[i] for i in order], params)
        assert permuted == [weights[i] for i in order], f"{method.name}: weights depend on the order of the candidates"
    none = _weights(method, [], params)
    assert none == [], f"{method.name}: no candidates were weighed {none}"


def _weights(method: type[Selector], candidates: Sequence[Candidate], params: Params) -> list[float]:
    async def found() -> list[float]:
        weights = method().weigh(candidates, params)
        return await weights if isinstance(weights, Awaitable) else weights

    return asyncio.run(found())


def gives_one_result(method: type[Search], params: Params) -> None:
    """Law: one seed, one result, whatever arrives first; every token counted, none beyond the limits, none to come.

    The limits: the budget, the reward's tokens, and the continuations in flight that `width` tells.
    """
    results = []
    for shuffle, budget, reading in ((None, None, 10**6), (1, None, 10**6), (2, 400, 300), (3, 400, 300)):
        result = _kept(method, params, ScriptedEngine(shuffle=shuffle), budget, reading)
        results.append((result.candidates, result.weights))
    assert results[0] == results[1], f"{method.name}: one seed gave two results"
    assert results[2] == results[3], f"{method.name}: one seed gave two results under a budget"


def outlives_a_branch(method: type[Search], params: Params) -> None:
    """Law: where the engine fails one of several branches, the others go on; not tried where there is one alone."""
    first = list[int]()  # seeds of the branches that begin at the prompt

    def dies(call: Call) -> str | None:
        if call.ids == PROMPT and call.seed not in first:
            first.append(call.seed)
        return "lost" if call.seed == first[0] else None

    try:
        result = _kept(method, params, ScriptedEngine(dies=dies))
    except Exception as error:  # a stranger's code: whatever it raises, the others were stopped
        if len(first) < 2:
            return
        about = f"{method.name}: one of {len(first)} branches failed, and all ended"
        raise AssertionError(f"{about}: {error}") from error
    fates = {candidate.ended for candidate in result.candidates}
    assert "fault" not in fates, f"{method.name}: an answer that failed is among the candidates"


def _kept(
    method: type[Search], params: Params, engine: ScriptedEngine, budget: int | None = None, reading: int = 10**6
) -> Result:
    """Search, and see that the tokens were counted and kept within the limits."""
    width = method.width(params)
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
    return result


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


OF_SELECTORS: Mapping[str, Callable[[type[Selector], Params], None]] = MappingProxyType(
    {"one weight per candidate, whatever their order": weighs_each_candidate}
)
OF_SEARCHES: Mapping[str, Callable[[type[Search], Params], None]] = MappingProxyType(
    {
        "one seed gives one result, within its budget": gives_one_result,
        "a branch that fails does not end the others": outlives_a_branch,
    }
)
