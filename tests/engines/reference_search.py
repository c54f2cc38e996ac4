"""A search on midstep-eager: what every engine must find under the same seed, in float32, where midstep draws.

`python -m engines.reference_search MODEL` makes what `reference` returns, for those who cannot load a network.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from engines import kept, scenario, searching
from engines.searching import HOT, PLANS, searched

import midstep
import midstep_eager
from midstep.searching import Call, Piece, Streaming

DRAWN: dict[str, Any] = {"methods": {"min_p": {"p": 0.0}}, "budget": None}
SEED = 5
SOURCES = [Path(__file__), Path(scenario.__file__), Path(searching.__file__)]


class Eager(Streaming):
    """midstep-eager as an engine for searches: it continues one prefix after the other."""

    def __init__(self, model: str) -> None:
        self.network, tokenizer = scenario.load(model)
        super().__init__(tokenizer)

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """Yield the continuation up to the first separator, as engines do; a step of nothing else is gone on with."""
        sampling = midstep.Sampling(**{**HOT, **call.sampling})
        options = midstep_eager.Options(max_tokens=call.max_tokens, seed=call.seed, sampling=sampling)
        (answer,) = midstep_eager.generate(self.network, self.tokenizer, call.ids, options, **call.methods)
        for end in range(1, len(answer.ids) + 1):
            if any(one in self.tokenizer.decode(answer.ids[:end]) for one in call.until):
                yield Piece(tuple(answer.ids[:end]), (), "step")
                return
        yield Piece(tuple(answer.ids), (), "end" if answer.finish_reason == "stop" else "length")


def found(result: midstep.Result) -> list[list[int]]:
    """Return what must be equal: each candidate's token ids."""
    return [list(candidate.ids) for candidate in result.candidates]


def reference(model: str) -> dict[str, list[list[int]]]:
    """Return what each search finds, by its name; worked out once and kept."""
    return dict(kept.once("searches", model, SOURCES, lambda folder: asyncio.run(_reference(model)))[1])


async def _reference(model: str) -> dict[str, list[list[int]]]:
    engine = Eager(model)
    return {next(iter(plan)): found(await searched(engine, SEED, **DRAWN, **plan)) for plan in PLANS}


async def finds_the_same(
    engine: Any, expected: dict[str, list[list[int]]], *plans: dict[str, Any], draws: bool = False
) -> None:
    """The engine's searches find midstep-eager's candidates, token by token.

    Args:
        draws: midstep draws in the engine though no method is named.
    """
    drawn = {"budget": None} if draws else DRAWN
    for plan in plans:
        (name,) = plan
        assert found(await searched(engine, SEED, **drawn, **plan)) == expected[name], name


if __name__ == "__main__":
    reference(sys.argv[1])
