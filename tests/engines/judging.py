"""What the tests of step rewards expect in every engine: steps and scores are worked out again from the whole text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import midstep
from midstep.searching.boundary import bare_steps, holds, split
from midstep_judged import rule

FAILING = ("judged_sleeps", "judged_blocks", "judged_raises", "judged_dies")


def asked(separator: str, reward: str = "judged", **params: Any) -> dict[str, Any]:
    """Return the method with its parameters."""
    return {"step_reward": {"reward": reward, "separator": separator, **params}}


def often(decode: Callable[[Sequence[int]], str], answers: Sequence[Sequence[int]]) -> str:
    """Return a text that is in all of these answers, and makes the most steps in the one with the fewest."""
    counts = [Counter(text for token in ids if holds(text := decode([token]).strip(), ())) for ids in answers]
    return max(sorted(counts[0]), key=lambda text: min(count[text] for count in counts))


def scores(text: str, separator: str) -> list[float]:
    """Return the score of every step of a text that has ended."""
    steps = split(text, [separator])
    ended = [step for step in steps if separator in step.lstrip().removeprefix(separator)]
    return [rule(step) for step in bare_steps(ended, [separator])]


def told(report: midstep.Report | None) -> list[midstep.report.Step]:
    """Return the steps of a report."""
    assert report is not None
    assert report.steps is not None
    return report.steps


def right(report: midstep.Report | None, expected: Sequence[float]) -> None:
    """Check that each step is reported in its order, with its score where there is one."""
    found = told(report)
    assert [step.end for step in found] == sorted({step.end for step in found})
    assert len(found) == len(expected)
    for step, score in zip(found, expected, strict=True):
        assert step.score in (None, score)
        assert step.verdict == ("late" if step.score is None else step.verdict)
