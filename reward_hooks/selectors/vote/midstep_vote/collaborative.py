"""Collaborative verification: an answer in words counts if the program beside it comes to the same one.

    W(a) = sum over texts that come to a of score_i * (1 if its program agrees, `wrong` if it does not,
           `unsure` without a program or an answer);  where that is 0 for all: the sum of the scores

Liang et al. 2024, "Improving LLM reasoning through scaling inference computation with collaborative verification"
(arXiv 2410.05318), its CoTnPoT filter; with unsure = 0.5 and wrong = 0.2 code-based self-verification (Zhou et al.
2023, arXiv 2308.07921).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field

import midstep
from midstep.methods import OPERATOR

from .answers import classified, comparison, extracted, plain

FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
# Run behind the program, in its names. It imports nothing: there may be no files to import from.
TEST = """
def _comes_to():
    held = globals()
    for name in ("answer", "ans", "result"):
        if name in held:
            return held[name]
    return held["solution"]()
_found = _comes_to()
if {number} is None:
    assert str(_found).strip().lower() == {text}
else:
    assert abs(float(str(_found).replace(",", "")) - {number}) <= 1e-6 * max(1.0, abs({number}))
"""


class Collaborative(midstep.Selector):
    """Weighs each candidate by its score and by what the program in its text comes to."""

    name = "collaborative"

    class Params(midstep.Params):
        """What a search may set."""

        unsure: float = Field(0.0, ge=0, le=1, description="What a text without a program or an answer counts.")
        wrong: float = Field(0.0, ge=0, le=1, description="What a text counts whose program comes to something else.")
        seconds: float = Field(
            5.0, gt=0, le=600, description="A program may take; it is killed then.", json_schema_extra=OPERATOR
        )
        memory: int = Field(
            512,
            ge=64,
            le=65536,
            description="MiB of address space that a program may have.",
            json_schema_extra=OPERATOR,
        )
        lax: bool = Field(
            False, description="Run programs although the kernel cannot hold them.", json_schema_extra=OPERATOR
        )
        equal: Literal["auto", "math_verify", "text"] = Field(
            "auto", description="What compares answers; auto: math_verify where it is installed, else text."
        )

    async def weigh(self, candidates: Sequence[midstep.Candidate], params: Any) -> list[float]:
        """Return each candidate's weight: what speaks for the answer that it comes to.

        Raises:
            ValueError: a score is below 0, or a text has a program and there is no sandbox.
        """
        scores = [1.0 if candidate.score is None else candidate.score for candidate in candidates]
        if any(score < 0 for score in scores):
            raise ValueError(f"collaborative takes scores from 0 up, and one is {min(scores)}")
        answers = [extracted(FENCED.sub("", candidate.text)) for candidate in candidates]
        agree = await agreeing([candidate.text for candidate in candidates], answers, params)
        classes = classified(answers, comparison(params.equal))
        counts = [{True: 1.0, False: params.wrong, None: params.unsure}[state] for state in agree]
        return weighed(classes, scores, counts)


def weighed(classes: Sequence[int | None], scores: Sequence[float], counts: Sequence[float]) -> list[float]:
    """Return each candidate's weight; where nothing counts for any answer, everything does."""
    speaks = [s * c for number, s, c in zip(classes, scores, counts, strict=True) if number is not None]
    if not any(speaks):
        counts = [1.0] * len(scores)
    own: dict[int, list[float]] = {number: [] for number in classes if number is not None}
    for number, score, count in zip(classes, scores, counts, strict=True):
        if number is not None:
            own[number].append(score * count)
    totals = {number: sum(sorted(found)) for number, found in own.items()}
    if not totals:
        return list(scores)
    return [0.0 if number is None else totals[number] for number in classes]


async def agreeing(texts: Sequence[str], answers: Sequence[str | None], params: Any) -> list[bool | None]:
    """Say of each text whether its last program comes to its answer; None: it lacks one of the two.

    A program leaves its answer in `answer`, `ans` or `result`, or returns it from `solution()`. The same program with
    the same answer runs once.

    Raises:
        ValueError: there is a program, and midstep-verifier, which has the sandbox, is not installed.
    """
    slots = asyncio.Semaphore(os.cpu_count() or 1)
    programs = [(FENCED.findall(text) or [None])[-1] for text in texts]
    asked = {
        (program, answer)
        for program, answer in zip(programs, answers, strict=True)
        if program is not None and answer is not None
    }

    async def run(program: str, answer: str) -> bool:
        async with slots:
            return await _comes_to(program, answer, params)

    pairs = sorted(asked)
    known = dict(zip(pairs, await asyncio.gather(*(run(*pair) for pair in pairs)), strict=True))
    return [known.get((program, answer)) for program, answer in zip(programs, answers, strict=True)]  # type: ignore[arg-type]


async def _comes_to(program: str, answer: str, params: Any) -> bool:
    try:
        from midstep_verifier.sandbox import Bounds, passed
    except ImportError as error:
        raise ValueError(
            "collaborative runs the programs in the texts in midstep-verifier's sandbox; pip install midstep-verifier"
        ) from error
    said = plain(answer)
    try:
        number: float | None = float(Fraction(said))
    except (ValueError, OverflowError):
        number = None
    test = TEST.format(number=repr(number), text=repr(said))
    return await passed(program, [test], Bounds(params.seconds, params.memory, params.lax)) == 1
