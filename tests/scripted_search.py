"""Runs a search on the scripted engine."""

import asyncio
from dataclasses import dataclass
from typing import Any

import midstep
from midstep.searching import Problem
from midstep.testing.beside import scripted, searched
from midstep.testing.scripted import ScriptedEngine


@dataclass(frozen=True)
class Solved:
    """A search that is done."""

    result: midstep.Result
    problem: Problem
    engine: ScriptedEngine

    @property
    def outcome(self) -> Any:
        """Return what must be the same under one seed."""
        return self.result.candidates, self.result.weights

    @property
    def fates(self) -> dict[str, int]:
        """Return how many nodes of the trace met which fate."""
        fates = [node["fate"].split()[0] for node in self.problem.traced()["nodes"].values()]
        return {fate: fates.count(fate) for fate in set(fates)}


def solve(
    method: type[midstep.Search],
    engine: ScriptedEngine | None = None,
    *,
    seed: int = 7,
    budget: int | None = None,
    **params: Any,
) -> Solved:
    """Search, and see that nothing is left over and that every token was counted."""
    engine = engine or ScriptedEngine()
    problem = scripted(engine, method, budget, seed)
    result = asyncio.run(searched(method, problem, method.Params(**params)))
    assert engine.running == 0
    assert engine.widest <= method.width(method.Params(**params))
    assert problem.spent.engine == engine.tokens
    assert budget is None or problem.spent.engine + problem.spent.reward <= budget
    return Solved(result, problem, engine)
