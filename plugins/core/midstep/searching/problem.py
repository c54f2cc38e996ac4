"""One prompt with everything that a search needs: the engine, the reward, the seed, the budget and the trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import Field

from ..configuration import Limits
from ..methods import Params
from .aggregate import How, aggregate
from .boundary import bare, bare_steps
from .branch import Branch, closed_step, together
from .budget import Purse, Spent, affordable
from .engine import Engine, Prefix, Sample
from .path import Name, Path, child_seed
from .scoring import RewardGoneError, Scorer
from .tree import Tree


class StepParams(Params):
    """What every search by steps may be told."""

    step_tokens: int = Field(512, ge=1, description="Tokens of one step at most; a longer one is cut there.")
    max_tokens: int = Field(4096, ge=1, description="Tokens of one answer at most.")
    max_steps: int = Field(40, ge=1, description="Steps of one answer at most.")
    score: How = Field(
        "last", description='An answer\'s score: of its steps, or ("model") of the whole as a single step.'
    )


@dataclass(frozen=True)
class Settings:
    """How the engine is asked in one search.

    Args:
        until: separators of steps.
        sampling: temperature and the like, by OpenAI's names; over the engine's own.
        methods: midstep methods for every token.
        logprobs: whether the candidates need them.
    """

    until: tuple[str, ...] = ("\n\n",)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Any] = field(default_factory=dict)
    logprobs: bool = False


class Problem:
    """One prompt to be searched.

    Args:
        engine: that continues.
        prompt: token ids.
        question: the prompt as the reward gets it.
        scorer: the reward; None: nothing is scored.
        seed: everything that a search draws depends on it, and on addresses in the tree.
        budget: tokens of engine and reward together; None: no limit.
        limits: of the server; None: no limit to what the reward may read.
        progress: called with the address and the trace of a part of the tree, whenever it changes.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        question: str,
        scorer: Scorer | None = None,
        *,
        seed: int = 0,
        budget: int | None = None,
        settings: Settings | None = None,
        spent: Spent | None = None,
        limits: Limits | None = None,
        progress: Callable[[str, Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.engine, self.prompt, self.question = engine, tuple(prompt), question
        self.scorer, self.seed = scorer, seed
        self.settings, self.spent = settings or Settings(), spent or Spent()
        self.budget, self.limits = budget, limits
        self.purse = Purse(budget, self._reads)
        self.live: set[Sample] = set()
        self.tree = Tree()
        self._progress = progress
        self._short: dict[Name, str] = {}

    def open(
        self,
        path: Path,
        most: int,
        purse: Purse,
        *,
        greedy: bool = False,
        whole: bool = False,
        extra: str = "",
        share: bool = False,
    ) -> Branch:
        """Begin to continue a path by at most `most` tokens, which must be in the purse.

        Args:
            greedy: at temperature 0.
            whole: beyond separators, to the end of the answer.
            extra: part of the seed, where a path is continued more than once.
            share: it will not be cancelled alone, so that it may be sent with others of its parent.
        """
        if not purse.take(most):
            raise ValueError(f"{most} tokens are not in the purse, which holds {purse.left}; ask for fewer")
        ids = (*self.prompt, *path.ids)
        self.spent.prompt += len(ids)
        self.spent.calls += 1
        (sample,) = self.engine.extend(
            [Prefix(ids, path.open)],
            seeds=[child_seed(self.seed, path.name, extra)],
            max_tokens=[most],
            until=() if whole else self.settings.until,
            sampling={**self.settings.sampling, **({"temperature": 0.0} if greedy else {})},
            methods=self.settings.methods,
            logprobs=self.settings.logprobs,
            share=share,
        )
        self.live.add(sample)
        return Branch(self, path, sample, most, purse, whole)

    async def score(self, path: Path, how: How, purse: Purse) -> Path:
        """Return the path with the scores of its steps; one that the reward does not score may die (`Patience.gone`).

        Raises:
            RewardGoneError: the policy is to fail.
        """
        if self.scorer is None or path.dead or not path.steps:
            return path
        read = len(self.prompt) + len(path.ids)
        until = self.settings.until
        steps = bare_steps(path.steps, until) if how != "model" else [bare(path.text, until)]
        try:
            scores = await self.scorer.score(
                self.question,
                steps,
                self.scorer.reward.spends(path.read, read - path.read),
                purse,
            )
        except RewardGoneError as gone:
            if self.scorer.patience.gone == "fail":
                raise
            return replace(path, ended="fault", fault=str(gone))
        return replace(path, scores=scores, value=aggregate(scores, how), read=read)

    def affords(self, path: Path, most: int, purse: Purse, scored_at: Callable[[int], Sequence[int]]) -> int:
        """Return how many tokens, at most `most`, the purse pays with the scores that come at `scored_at(tokens)`."""

        spends = self.scorer.reward.spends if self.scorer is not None else lambda known, new: 0

        def cost(tokens: int) -> tuple[int, int]:
            scoring, read = 0, path.read
            for at in scored_at(tokens):
                now = len(self.prompt) + len(path.ids) + at
                scoring, read = scoring + spends(read, now - read), now
            return max([tokens, *scored_at(tokens)]) + scoring, scoring

        found = affordable(purse, most, cost)
        if found < most:
            is_budget = purse.holds(0, cost(found + 1)[1])
            self._short[path.name] = f"budget = {self.budget}" if is_budget else f"limits.reward_tokens = {self._reads}"
        return found

    async def step(self, parent: Path, child: int, params: StepParams, purse: Purse, *, lookahead: int = 0) -> Path:
        """Return a new path: `parent` and one more step, scored; its siblings are not waited for.

        Args:
            child: its number among its siblings.
            lookahead: greedy steps behind it, which are scored with it and then dropped.
        """
        path = replace(parent, name=(*parent.name, child))
        room = min(params.step_tokens, params.max_tokens - len(path.ids))
        most = self.affords(path, room, purse, lambda tokens: (tokens * (1 + lookahead),))
        if most < 1:
            return self.note(replace(path, ended="length" if room < 1 else "budget"))
        path = self.close_step(await self._one(path, most, purse), params, cut=most < room)
        ahead = path
        for number in range(lookahead):
            if ahead.alive:
                ahead = await self._one(ahead, most, purse, greedy=True, extra=f"ahead {number}")
                ahead = closed_step(ahead, self.settings.until)
        self.spent.discarded += len(ahead.ids) - len(path.ids)
        scored = await self.score(ahead if path.dead or not ahead.dead else path, params.score, purse)
        if scored.dead and not path.dead:
            return self.note(replace(path, ended="fault", fault=scored.fault))
        read = len(self.prompt) + len(path.ids) if scored.read else 0
        return self.note(replace(path, scores=scored.scores[: len(path.steps)], value=scored.value, read=read))

    def close_step(self, path: Path, params: StepParams, *, cut: bool) -> Path:
        """Return a path whose step is done; one that the budget has `cut`, or that is too long, goes no further."""
        if path.alive and len(path.ids) >= params.max_tokens:
            path = replace(path, ended="length")
        elif path.alive and path.open and cut:
            path = replace(path, ended="budget")
        return closed_step(path, self.settings.until)

    async def grow(
        self, parents: Sequence[tuple[Path, int]], params: StepParams, purse: Purse, *, lookahead: int = 0
    ) -> list[Path]:
        """Return each parent (with the number of its child) and one more step, scored, all at once, in their order.

        The purse is shared equally, so that what one gets does not depend on which is the first.
        """
        purses = purse.share(len(parents))
        grown = await together(
            self.step(path, child, params, own, lookahead=lookahead)
            for (path, child), own in zip(parents, purses, strict=True)
        )
        purse.collect(purses)
        return grown

    def note(self, path: Path, fate: str | None = None, why: str = "") -> Path:
        """Write a path into the trace, with what became of it; return it."""
        short = self._short.get(path.name, "") if path.ended == "budget" else ""
        address, known = self.tree.note(path, fate or path.ended or "grown", why or path.fault or short)
        if self._progress is not None:
            self._progress(address, known)
        return path

    def traced(self) -> dict[str, Any]:
        """Return the trace: its nodes by address, in the order of addresses, and what was spent."""
        return {"version": 1, "seed": self.seed, "nodes": self.tree.sorted(), "spent": asdict(self.spent)}

    async def close(self) -> None:
        """End everything that still runs in the engine and at the reward."""
        for sample in self.live:
            sample.cancel()
        await asyncio.gather(*(sample.gone() for sample in self.live))
        if self.scorer is not None:
            await self.scorer.close()

    @property
    def _reads(self) -> int | None:
        return None if self.limits is None else self.limits.reward_tokens

    async def _one(self, path: Path, most: int, purse: Purse, *, greedy: bool = False, extra: str = "") -> Path:
        """Continue a path by a step; where the engine took a separator alone for a step, go on."""
        begun, number = len(path.ids), 0
        while True:
            extras = f"{extra}{number or ''}"
            path = await self.open(path, most, purse, greedy=greedy, extra=extras, share=True).end()
            left = most - (len(path.ids) - begun)
            if not path.alive or path.open == 0 or left < 1:
                return path
            number, most, begun = number + 1, left, len(path.ids)
