"""What the tests of step rewards expect in every engine: steps and scores are worked out again, the plain way."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import midstep
from midstep.searching.boundary import bare_steps
from midstep_judged import rule

FAILING = ("judged_sleeps", "judged_blocks", "judged_raises", "judged_dies")
FEW = 2


def asked(separator: str, reward: str = "judged", **params: Any) -> dict[str, Any]:
    """Return the method with its parameters."""
    return {"step_reward": {"reward": reward, "separator": separator, **params}}


def separator(tokenizer: Any, answers: Sequence[Sequence[int]]) -> str:
    """Return the letter that makes the fewest steps, but FEW in each answer, in time to end it."""
    least = {
        letter: min(sum(end < len(ids) - 3 for end, _ in steps(tokenizer, ids, letter)) for ids in answers)
        for letter in ascii_letters
    }
    enough = [letter for letter in ascii_letters if least[letter] >= FEW]
    assert enough, least
    return min(enough, key=lambda letter: least[letter])


def steps(tokenizer: Any, ids: Sequence[int], separator: str) -> list[tuple[int, float]]:
    """Return where each step of an answer ends, and its score."""
    texts, ends, begin = [], [], 0
    for end in range(1, len(ids) + 1):
        content = _text(tokenizer, ids[begin:end])
        while content != (content := content.lstrip().removeprefix(separator)):
            pass
        if separator in content:
            texts.append(_text(tokenizer, ids[:end])[len(_text(tokenizer, ids[:begin])) :])
            ends.append(end)
            begin = end
    return list(zip(ends, map(rule, bare_steps(texts, [separator])), strict=True))


def told(report: midstep.Report | None) -> list[Any]:
    """Return the steps of a report."""
    assert report is not None
    assert report.steps is not None
    return report.steps


def right(report: midstep.Report | None, expected: Sequence[tuple[int, float]]) -> None:
    """Check that each step is reported in its order, with its score where there is one."""
    found = told(report)
    assert [step.end for step in found] == [end for end, _ in expected]
    for step, (_, score) in zip(found, expected, strict=True):
        assert step.score in (None, score)
        assert (step.verdict == "late") == (step.score is None)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
