"""REBASE, reward-balanced search: partial answers get samples by a softmax of their scores.

    e_i = exp(r_i / T);  in the order of scores, the best first:  n_i = ceil(W e_i / S),  W -= n_i,  S -= e_i

W is the width less the answers that have ended; n_i steps are drawn from partial answer i.

Wu et al. 2024, "Inference scaling laws" (arXiv 2408.00724); code thu-wyz/inference_scaling.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

import midstep
from midstep.searching import Path, Problem, StepParams, found

SEAM = 1


class Rebase(midstep.Search):
    """Grows a tree whose width goes where the reward is high."""

    name = "rebase"

    class Params(StepParams):
        """What a search may set."""

        width: int = Field(16, ge=1, le=1024, description="Answers in all.")
        temperature: float = Field(0.2, gt=0, description="Of the softmax: higher is flatter.", examples=[0.05])
        max_steps: int = Field(25, ge=1, description="Steps of one answer at most.")

    @classmethod
    def width(cls, params: Any) -> int:
        """Return width."""
        return int(params.width)

    async def run(self, problem: Problem, params: Any) -> midstep.Result:
        """Search; a depth waits for all of its steps, since the shares are relative."""
        width, done = params.width, list[Path]()
        asked = [(Path(), child) for child in range(width)]
        under_way: list[Path] = []
        for _ in range(params.max_steps):
            grown = await problem.grow(asked, params, problem.purse)
            done += [path for path in grown if not path.alive]
            # one that died gives its place back; one that ended does not
            width -= sum(not path.alive and not path.dead for path in grown)
            under_way = [path for path in grown if path.alive]
            if width <= 0 or not under_way:
                break
            shares = shared([path.value or 0.0 for path in under_way], width, params.temperature)
            for path, share in zip(under_way, shares, strict=True):
                problem.note(
                    path, f"kept {share} times" if share else "pruned", "" if share else "no share of the width"
                )
            asked = [(path, child) for path, share in zip(under_way, shares, strict=True) for child in range(share)]
        ends = done + [replace(path, ended="steps") for path in under_way]
        return found(ends, [path.value for path in ends])


def shared(scores: Sequence[float], width: int, temperature: float) -> list[int]:
    """Return how many samples each gets; they add up to `width`. Of equal scores the later one comes first."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])[::-1]
    # relative to the best one, which changes no share and keeps exp in range
    weights = [math.exp((scores[i] - scores[order[0]]) / temperature) for i in order]
    shares, left = [0] * len(scores), math.fsum(weights)
    for place, (i, weight) in enumerate(zip(order, weights, strict=True)):
        # the last one takes what is left, whatever rounding made of the sum
        last = place == len(order) - 1
        shares[i] = width if last else min(width, math.ceil(width * weight / left)) if left > 0 else 0
        width, left = width - shares[i], left - weight
    return shares


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Search]]:
    """Offer the search."""
    return [Rebase]
