"""Early rejection: score the first tokens of each step, and end the weakest in the middle of it.

    each round:  n = beams m steps begin;  r_i = score after tau tokens of the step;  the best `beams` finish it

Cheshmi et al. 2025, "Accelerating LLM reasoning via early rejection with partial reward modeling" (EMNLP 2025).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

import midstep
from midstep.searching import Branch, Path, Problem, Purse, StepParams, found, together

SEAM = 1


@dataclass(frozen=True)
class Begun:
    """A step of which the first tokens are scored.

    Args:
        path: with these tokens.
        branch: under way; None: the step is done already.
        most: tokens of the step that its purse has paid for, or can.
        cut: whether that is less than a step may have.
    """

    path: Path
    branch: Branch | None
    most: int
    cut: bool
    purse: Purse


class EarlyRejection(midstep.Search):
    """Beam search over steps that ends most of them early."""

    name = "early_rejection"

    class Params(StepParams):
        """What a search may set."""

        beams: int = Field(4, ge=1, le=256, description="Steps of a round that are finished.")
        m: int = Field(4, ge=1, le=64, description="Begun for each of them; n, those of a round, is beams times m.")
        tau: int = Field(64, ge=1, description="Tokens of a step after which it is scored.", examples=[2])
        pause: bool = Field(
            False, description="Wait at tau for the verdict; else a step goes on until it is cancelled."
        )

    @classmethod
    def width(cls, params: Any) -> int:
        """Return beams * m."""
        return int(params.beams * params.m)

    async def run(self, problem: Problem, params: Any) -> midstep.Result:
        """Search; a round waits until all of its steps have their first tokens, since it ranks them."""
        beams, done = [Path()], list[Path]()
        for _ in range(params.max_steps):
            purses = problem.purse.share(params.beams * params.m)
            begun = await together(
                _begin(problem, beams[i % len(beams)], i // len(beams), params, purse) for i, purse in enumerate(purses)
            )
            done += [one.path for one in begun if not one.path.alive]
            order = sorted((one for one in begun if one.path.alive), key=_weakness)
            await together(_reject(problem, one, params) for one in order[params.beams :])
            finished = await together(_finish(problem, one, params) for one in order[: params.beams])
            problem.purse.collect(purses)
            done += [path for path in finished if not path.alive]
            beams = [path for path in finished if path.alive]
            if not beams:
                break
        ends = done + [replace(path, ended="steps") for path in beams]
        return found(ends, [path.value for path in ends])


async def _begin(problem: Problem, parent: Path, child: int, params: Any, purse: Purse) -> Begun:
    """Begin a step, and score its first tokens; where it is no longer than these, it is done."""
    path = replace(parent, name=(*parent.name, child))
    room = min(params.step_tokens, params.max_tokens - len(path.ids))
    most = problem.affords(path, room, purse, lambda tokens: tuple(sorted({min(tokens, params.tau), tokens})))
    if most < 1:
        ended = problem.note(replace(path, ended="length" if room < 1 else "budget"))
        return Begun(ended, None, 0, True, purse)
    branch = problem.open(path, min(most, params.tau) if params.pause else most, purse, share=params.pause)
    first = await branch.reach(params.tau)
    is_done = not first.alive or first.open == 0 or most <= params.tau
    if is_done or params.pause:
        first = await branch.end()
    if is_done:
        first = problem.close_step(first, params, cut=most < room)
    scored = await problem.score(first, params.score, purse)
    problem.note(scored)
    return Begun(scored, None if is_done else branch, most, most < room, purse)


async def _finish(problem: Problem, begun: Begun, params: Any) -> Path:
    """Let a step come to its end, and score it."""
    path = begun.path
    if begun.branch is None:
        return problem.note(path, "kept")
    if params.pause:
        whole = await problem.open(path, begun.most - params.tau, begun.purse, extra="rest").end()
    else:
        whole = replace(await begun.branch.end(), read=path.read)
    whole = problem.close_step(whole, params, cut=begun.cut)
    scored = await problem.score(whole, params.score, begun.purse)
    return problem.note(scored, None if not scored.alive else "kept")


async def _reject(problem: Problem, begun: Begun, params: Any) -> None:
    """End a step in its middle."""
    if begun.branch is not None and not params.pause:
        await begun.branch.cancel()
    elif begun.branch is not None:
        problem.spent.discarded += params.tau
    problem.note(begun.path, "pruned", f"among the weakest after {params.tau} tokens")


def _weakness(begun: Begun) -> float:
    return -(begun.path.value if begun.path.value is not None else float("-inf"))


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Search]]:
    """Offer the search."""
    return [EarlyRejection]
