"""Whether a text comes to a known answer, by Hugging Face's math-verify."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

import midstep

LAST = 2000  # characters of a text without \\boxed that are searched for an answer


class MathVerify(midstep.Reward):
    """Says whether the text up to each step comes to the known answer."""

    name = "math_verify"

    class Params(midstep.Params):
        """The answers, and how long a comparison may take."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"answer": "5"}]})

        answer: str | None = Field(None, description="The known answer, as LaTeX or as a number.")
        of: dict[str, str] = Field({}, description="The answers by prompt, where they are not the one for all.")
        seconds: float = Field(5.0, ge=1, le=60, description="A comparison may take; then the text is wrong.")

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._known: dict[tuple[str, str], float] = {}

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Return 1.0 or 0.0 per step.

        Raises:
            ValueError: no answer is known for this prompt.
            ImportError: math-verify is not installed.
        """
        if not steps:
            return []
        answer = self.params.of.get(prompt, self.params.answer)
        if answer is None:
            raise ValueError(f"no known answer for {prompt[:80]!r}; set answer, or of = {{prompt: answer}}")
        return [await self._same(ending("\n".join(steps[: i + 1])), answer) for i in range(len(steps))]

    async def close(self) -> None:
        """End the process that compares."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            process._transport.close()  # type: ignore[attr-defined]  # its pipes: asyncio leaves them to the collector
            await process.wait()

    def spends(self, known: int, new: int) -> int:
        """Return 0: no model reads anything."""
        return 0

    async def _same(self, text: str, answer: str) -> float:
        if (text, answer) not in self._known:
            async with self._turn:
                try:
                    # its own time-outs first: a new process costs a second
                    said = await asyncio.wait_for(self._ask(text, answer), 3 * self.params.seconds + 15)
                except TimeoutError:
                    said = False
                    await self.close()
                except BaseException:
                    await self.close()  # what it answers next would be to this question
                    raise
            self._known[text, answer] = float(said)
        return self._known[text, answer]

    async def _ask(self, text: str, answer: str) -> bool:
        if self._process is None:
            if find_spec("math_verify") is None:
                raise ImportError("math_verify compares answers and is not installed; pip install midstep[math]")
            pipe = asyncio.subprocess.PIPE
            # as a file, without this package: that would import torch
            command = (sys.executable, "-P", str(Path(__file__).with_name("worker.py")))
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([text, answer, self.params.seconds]).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the process that compares answers has ended")
        return bool(json.loads(line))


def ending(text: str) -> str:
    """Return what of a text can hold its answer: from its last \\boxed on, or its last characters."""
    boxed = text.rfind("\\boxed")
    return text[boxed:] if boxed >= 0 else text[-LAST:]
