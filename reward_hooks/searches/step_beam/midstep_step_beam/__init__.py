"""Beam search over steps: each round, every beam takes a step, and the best ones go on.

    sal        of n = beams m steps the best go on, as copies until they are n again; a finished one leaves
    alphamath  the beams branch m times each, the best go on; a finished one leaves, and so does its place

sal: Snell et al. 2024 (arXiv 2408.03314), as in huggingface/search-and-learn; alphamath: Chen et al. 2024
(arXiv 2405.03553), as in Super_MARIO.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

import midstep
from midstep.searching import Path, Problem, StepParams, found

SEAM = 1


class StepBeam(midstep.Search):
    """Extends partial answers step by step and keeps the best of each round."""

    name = "step_beam"

    class Params(StepParams):
        """What a search may set."""

        form: Literal["sal", "alphamath"] = Field("sal", description="Whose form.")
        beams: int = Field(4, ge=1, le=256, description="Partial answers that go on from a round.")
        m: int = Field(4, ge=1, le=64, description="Children of each; n, those of a round, is beams times m.")
        lookahead: int = Field(
            0, ge=0, le=16, description="Greedy steps behind each new one, which are scored with it."
        )
        dedupe: bool = Field(False, description="Equal partial answers compete as one.")

    @classmethod
    def width(cls, params: Any) -> int:
        """Return beams * m."""
        return int(params.beams * params.m)

    async def run(self, problem: Problem, params: Any) -> midstep.Result:
        """Search; a round waits for all of its steps, since it ranks them."""
        places = params.beams
        beams, done, best = [Path()], list[Path](), list[Path]()
        for _ in range(params.max_steps):
            grown = await problem.grow(
                _children(beams, places, params), params, problem.purse, lookahead=params.lookahead
            )
            ended = [path for path in grown if not path.alive]
            if params.form == "alphamath":
                best = ranked(grown)[:places]
                ended = [path for path in best if not path.alive] + [path for path in ended if path.dead]
                places -= sum(not path.alive for path in best)
            else:
                best = ranked([path for path in grown if path.alive], dedupe=params.dedupe)[:places]
            done += ended
            for path in grown:
                if path.alive:
                    kept = path in best
                    problem.note(
                        path, "kept" if kept else "pruned", "" if kept else f"not among the best {params.beams}"
                    )
            beams = [path for path in best if path.alive]
            if not beams:
                break
        # what is still under way when the steps are used up is a candidate too
        ends = done + [replace(path, ended="steps") for path in beams]
        return found(ends, [path.value for path in ends])


def _children(beams: Sequence[Path], places: int, params: Any) -> list[tuple[Path, int]]:
    """Return who takes a step: copies of the beams, as many as a round has."""
    if params.form == "alphamath":
        first = params.beams * params.m if beams[0].name == () else params.m
        return [(path, child) for path in beams for child in range(first)]
    copies = refill(beams, params.beams * params.m)
    return [(path, i // len(beams)) for i, path in enumerate(copies)]


def refill(beams: Sequence[Path], n: int) -> list[Path]:
    """Return n beams: all of them in turn, as search-and-learn does."""
    return [beams[i % len(beams)] for i in range(n)]


def ranked(paths: Sequence[Path], *, dedupe: bool = False) -> list[Path]:
    """Return those that live by their score, the best first; ties in their order. Dead ones are left out."""
    first = {path.text: path for path in reversed(paths)} if dedupe else None
    rivals = [path for path in paths if not path.dead and (first is None or first[path.text] is path)]
    return sorted(rivals, key=lambda path: -(path.value if path.value is not None else float("-inf")))


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Search]]:
    """Offer the search."""
    return [StepBeam]
