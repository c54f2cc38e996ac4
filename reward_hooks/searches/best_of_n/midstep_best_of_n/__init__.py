"""Best of n: draw whole answers, and take the one that the reward likes best.

    answer_i ~ model, i = 1 .. n          w_i = aggregate(reward(steps of answer_i))          argmax_i w_i

Stiennon et al. 2020 (arXiv 2009.01325); with a process reward Lightman et al. 2023 (arXiv 2305.20050).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

import midstep
from midstep.searching import How, Path, Problem, Purse, found, together

SEAM = 1


class BestOfN(midstep.Search):
    """Draws n whole answers at once and weighs each as soon as it is there."""

    name = "best_of_n"
    needs_reward = False

    class Params(midstep.Params):
        """What a search may set."""

        n: int = Field(16, ge=1, le=1024, description="Answers.")
        max_tokens: int = Field(4096, ge=1, description="Tokens of one answer at most.")
        score: How = Field(
            "last", description='An answer\'s score: of its steps, or ("model") of the whole as a single step.'
        )

    @classmethod
    def width(cls, params: Any) -> int:
        """Return n."""
        return int(params.n)

    async def run(self, problem: Problem, params: Any) -> midstep.Result:
        """Draw and weigh; each answer has an equal share of the budget, so that none depends on another."""
        purses = problem.purse.share(params.n)
        paths = await together(_answer(problem, i, params, purse) for i, purse in enumerate(purses))
        return found(paths, [path.value for path in paths])


async def _answer(problem: Problem, number: int, params: Any, purse: Purse) -> Path:
    """Return one whole answer with its scores."""
    path = Path((number,))
    most = problem.affords(path, params.max_tokens, purse, lambda tokens: (tokens,))
    if most < 1:
        return problem.note(replace(path, ended="budget"))
    path = await problem.open(path, most, purse, whole=True, share=True).end()
    if path.alive:
        path = replace(path, ended="length" if most == params.max_tokens else "budget")
    return problem.note(await problem.score(path, params.score, purse))


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Search]]:
    """Offer the search."""
    return [BestOfN]
