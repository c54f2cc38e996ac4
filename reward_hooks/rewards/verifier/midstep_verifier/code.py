"""The share of tests that an answer's Python passes."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field

import midstep

from .sandbox import Bounds, passed

FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class Code(midstep.Reward):
    """Runs the last block of code in the text up to each step; its score is the share of tests that pass."""

    name = "code"

    class Params(midstep.Params):
        """What is tested, and what a run may take."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"tests": ["assert f(2) == 4"]}]})

        tests: list[str] = Field(
            [], description="Python run behind the answer's, in its names; a test that raises nothing has passed."
        )
        of: dict[str, list[str]] = Field({}, description="The tests by prompt, where they are not those for all.")
        seconds: float = Field(5.0, gt=0, le=600, description="A run may take; it is killed then.")
        memory: int = Field(512, ge=64, le=65536, description="MiB of address space that a run may have.")
        at_once: int = Field(0, ge=0, le=256, description="Runs at a time; 0: one per core.")
        lax: bool = Field(False, description="Run although the kernel cannot cut off files, processes or the network.")

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._slots = asyncio.Semaphore(self.params.at_once or os.cpu_count() or 1)

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score the text up to each step; without a finished block of code it has 0.

        Raises:
            ValueError: no tests are known for this prompt.
            UnsealedError: the kernel cannot hold strangers' code.
        """
        tests = self.params.of.get(prompt, self.params.tests)
        if steps and not tests:
            raise ValueError(f"no tests for {prompt[:80]!r}; set tests, or of = {{prompt: tests}}")
        blocks = [FENCED.findall("\n".join(steps[: i + 1])) for i in range(len(steps))]
        codes = [found[-1] if found else None for found in blocks]
        wanted = [code for code in dict.fromkeys(codes) if code is not None]
        scores = dict(zip(wanted, await asyncio.gather(*(self._run(code, tests) for code in wanted)), strict=True))
        return [scores[code] if code is not None else 0.0 for code in codes]

    def spends(self, known: int, new: int) -> int:
        """Return 0: no model reads anything."""
        return 0

    async def _run(self, code: str, tests: Sequence[str]) -> float:
        bounds = Bounds(self.params.seconds, self.params.memory, self.params.lax)
        async with self._slots:
            return min(await passed(code, tests, bounds), len(tests)) / len(tests)
