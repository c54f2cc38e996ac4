"""Particle filtering: n partial answers, resampled at each step by the odds of their scores.

    w_i = softmax_i(logit(r_i) / T)            r_i: the score of particle i's answer so far
    n particles are drawn with weights w, finished ones among them; those under way take a step

Puri et al. 2025, "A probabilistic inference approach to inference-time scaling" (arXiv 2502.01618).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

from pydantic import Field

import midstep
from midstep.searching import Path, Problem, StepParams, found, odds, uniform

SEAM = 1


class ParticleFilter(midstep.Search):
    """Moves n particles step by step and resamples them by what the reward says."""

    name = "particle_filter"
    unit_scores = True

    class Params(StepParams):
        """What a search may set."""

        n: int = Field(16, ge=1, le=1024, description="Particles.")
        temperature: float = Field(1.0, gt=0, description="Of the weights: higher is flatter.", examples=[0.5])
        resample: Literal["systematic", "multinomial"] = Field("systematic", description="How particles are drawn.")
        ess: float = Field(
            1.0, ge=0, le=1, description="Resample only where the effective number is at most this share of n."
        )
        choose: Literal["best", "sample"] = Field(
            "best", description="The answer: the particle of the largest weight, or one drawn by weight."
        )

    @classmethod
    def width(cls, params: Any) -> int:
        """Return n."""
        return int(params.n)

    async def run(self, problem: Problem, params: Any) -> midstep.Result:
        """Search; a round waits for all of its steps, since weights are relative."""
        particles = await problem.grow([(Path(), i) for i in range(params.n)], params, problem.purse)
        for round_ in range(1, params.max_steps):
            if not any(path.alive for path in particles):
                break
            weights = weigh(particles, params.temperature)
            if effective(weights) <= params.ess * params.n:
                particles = _resampled(problem, particles, weights, params, round_)
            moved = [path for path in particles if path.alive]
            grown = iter(await problem.grow(_numbered(moved), params, problem.purse))
            particles = [next(grown) if path.alive else path for path in particles]
        particles = [replace(path, ended="steps") if path.alive else path for path in particles]
        result = found(particles, [path.value for path in particles])
        if params.choose == "best":
            return result
        living = [i for i, weight in enumerate(result.weights) if weight > 0] or list(range(len(result.weights)))
        drawn = odds([result.candidates[i].score or 0.0 for i in living], params.temperature)
        chosen = living[systematic(drawn, uniform(problem.seed, "answer"), 1)[0]]
        return replace(result, weights=tuple(float(i == chosen) for i in range(len(result.weights))))


def weigh(particles: Sequence[Path], temperature: float) -> list[float]:
    """Return the particles' weights; a dead one has none, and if all are dead, each an equal one."""
    living = [i for i, path in enumerate(particles) if not path.dead]
    weights = [0.0] * len(particles)
    for i, weight in zip(living, odds([particles[i].value or 0.0 for i in living], temperature), strict=True):
        weights[i] = weight
    return weights if living else [1 / len(particles)] * len(particles)


def effective(weights: Sequence[float]) -> float:
    """Return the effective number of particles, 1 / sum w^2."""
    return 1 / sum(weight * weight for weight in weights)


def systematic(weights: Sequence[float], u: float, n: int | None = None) -> list[int]:
    """Return n indices: where u/n, (1 + u)/n ... fall in the cumulated weights; u in [0, 1)."""
    n = n or len(weights)
    return _places(weights, [(i + u) / n for i in range(n)])


def multinomial(weights: Sequence[float], us: Sequence[float]) -> list[int]:
    """Return one index for each u in [0, 1), drawn by weight."""
    return _places(weights, us)


def _places(weights: Sequence[float], us: Sequence[float]) -> list[int]:
    ends = list(accumulate(weights))
    last = max(i for i, weight in enumerate(weights) if weight > 0)
    return [min(bisect_right(ends, u), last) for u in us]


def _resampled(
    problem: Problem, particles: Sequence[Path], weights: Sequence[float], params: Any, round_: int
) -> list[Path]:
    if params.resample == "systematic":
        chosen = systematic(weights, uniform(problem.seed, "resample", round_))
    else:
        chosen = multinomial(weights, [uniform(problem.seed, "resample", round_, i) for i in range(len(weights))])
    for i, path in enumerate(particles):
        copies = chosen.count(i)
        problem.note(path, f"kept {copies} times" if copies else "pruned", f"weight {weights[i]:.3g}")
    return [particles[i] for i in chosen]


def _numbered(paths: Sequence[Path]) -> list[tuple[Path, int]]:
    """Return each path with the number of its copy: a copy draws with a seed of its own."""
    seen: dict[Any, int] = {}
    numbered = []
    for path in paths:
        numbered.append((path, seen.setdefault(path.name, 0)))
        seen[path.name] += 1
    return numbered


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Search]]:
    """Offer the search."""
    return [ParticleFilter]
