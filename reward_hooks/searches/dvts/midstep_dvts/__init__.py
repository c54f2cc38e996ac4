"""DVTS, diverse verifier tree search: subtrees that never compete; each keeps its best step.

    each subtree, on its own:  m steps are drawn and scored (with what lies ahead); the best one goes on, the first of
    several; when it ends, the m last candidates of the subtree are answers

Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models"; code huggingface/search-and-learn.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

import midstep
from midstep.searching import Path, Problem, Purse, StepParams, found, together

SEAM = 1


class Dvts(midstep.Search):
    """Searches several subtrees at once, each by its own best step."""

    name = "dvts"

    class Params(StepParams):
        """What a search may set."""

        trees: int = Field(4, ge=1, le=256, description="Subtrees.")
        m: int = Field(4, ge=1, le=64, description="Steps drawn in each round of a subtree.")
        lookahead: int = Field(
            0, ge=0, le=16, description="Greedy steps behind each new one, which are scored with it."
        )

    @classmethod
    def width(cls, params: Any) -> int:
        """Return trees * m."""
        return int(params.trees * params.m)

    async def run(self, problem: Problem, params: Any) -> midstep.Result:
        """Search; no subtree waits for another, and each has an equal share of the budget."""
        purses = problem.purse.share(params.trees)
        trees = await together(_subtree(problem, i, params, purse) for i, purse in enumerate(purses))
        paths = [path for tree in trees for path in tree]
        return found(paths, [path.value for path in paths])


async def _subtree(problem: Problem, number: int, params: Any, purse: Purse) -> list[Path]:
    """Return a subtree's last candidates."""
    path, grown = Path((number,)), list[Path]()
    for _ in range(params.max_steps):
        grown = await problem.grow(
            [(path, child) for child in range(params.m)], params, purse, lookahead=params.lookahead
        )
        i_best = best(grown)
        if i_best is None:
            return grown
        path = grown[i_best]
        for i, other in enumerate(grown):
            if other.alive:
                problem.note(
                    other, "kept" if i == i_best else "pruned", "" if i == i_best else "not its subtree's best"
                )
        if not path.alive:
            break
    return [replace(other, ended="steps") if other.alive else other for other in grown]


def best(paths: Sequence[Path]) -> int | None:
    """Return the place of the largest score, the first of several; None where all are dead."""
    places = [i for i, path in enumerate(paths) if not path.dead]
    return max(places, key=lambda i: _value(paths[i]), default=None)


def _value(path: Path) -> float:
    return path.value if path.value is not None else float("-inf")


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Search]]:
    """Offer the search."""
    return [Dvts]
