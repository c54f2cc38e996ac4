"""One path being continued by the engine, and its tokens being paid."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from .boundary import holds, split
from .engine import Continuation, Sample
from .path import Fate, Path

if TYPE_CHECKING:
    from .budget import Purse
    from .problem import Problem

T = TypeVar("T")
FATES: dict[str, Fate] = {"end": "end", "length": "length", "fault": "fault", "cancelled": "fault"}


class Branch:
    """A path under way; `problem.open` begins one.

    Args:
        whole: the answer is continued to its end, and its steps are found in its text.
    """

    def __init__(self, problem: Problem, path: Path, sample: Sample, most: int, purse: Purse, whole: bool) -> None:
        self._problem, self._path, self._sample = problem, path, sample
        self._most, self._purse, self._whole = most, purse, whole

    async def reach(self, tokens: int) -> Path:
        """Return the path with the next `tokens` tokens, or with all that there are; the engine goes on."""
        return await self._with(await self._sample.reach(tokens))

    async def end(self) -> Path:
        """Return the path with all that the engine added; what it did not need is given back to the purse."""
        added = await self._sample.end()
        await self._pay(added, len(added.ids))
        return await self._with(added)

    async def cancel(self) -> None:
        """End it in the engine now. The purse pays for all of it: so nothing depends on how far it had come."""
        self._sample.cancel()
        await self._sample.gone()
        await self._pay(await self._sample.end(), 0, in_full=True)

    async def _pay(self, added: Continuation, kept: int, *, in_full: bool = False) -> None:
        await self._sample.gone()
        self._problem.live.discard(self._sample)
        spent = self._problem.spent
        spent.engine += added.made
        spent.discarded += added.made - kept
        spent.sent += added.sent
        if added.cached is not None:
            spent.cached = (spent.cached or 0) + added.cached
        if not in_full and added.ended not in ("cancelled", "fault"):
            self._purse.give(max(self._most - added.made, 0))

    async def _with(self, added: Continuation) -> Path:
        """Return the path with what was added; a step is closed where its separator is."""
        path, until = self._path, self._problem.settings.until
        ids = path.ids + added.ids
        try:
            text = await self._problem.engine.decode(ids)
        except Exception as error:  # an engine that is gone, say: this branch is lost, and the search tells why
            return replace(path, ids=ids, ended="fault", fault=f"{type(error).__name__}: {error}")
        closed = path.steps if path.open == 0 else path.steps[:-1]
        step = text[len("".join(closed)) :]
        opened = path.open + len(added.ids)
        if self._whole:
            steps, opened = split(text, until), 0
        else:
            steps = (*closed, step) if step else closed
        # a step of nothing but its separator is none: it stays open, and goes on
        is_done = added.ended == "step" and holds(step, until)
        longer = replace(
            path,
            ids=ids,
            steps=steps,
            open=opened,
            logprob=path.logprob + sum(added.logprobs),
            ended=FATES.get(added.ended),
            fault=added.fault or ("cancelled" if added.ended == "cancelled" else ""),
        )
        return closed_step(longer, until) if is_done or longer.ended is not None else longer


def closed_step(path: Path, until: tuple[str, ...]) -> Path:
    """Return the path with its last step as done; one without content belongs to the one before."""
    if len(path.steps) > 1 and not holds(path.steps[-1], until):
        return replace(path, open=0, steps=(*path.steps[:-2], path.steps[-2] + path.steps[-1]))
    return replace(path, open=0)


async def together(parts: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Run all at once and return their results in order; where one fails, the others are ended before it is told."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
