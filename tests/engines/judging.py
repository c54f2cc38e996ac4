"""What the tests of step rewards expect in every engine: steps and scores are worked out again, the plain way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import midstep
from midstep.searching.boundary import bare_steps
from midstep_judged import rule

FAILING = ("judged_sleeps", "judged_blocks", "judged_raises", "judged_dies")
FEW = 2


def asked(separator: str | list[str], reward: str = "judged", **params: Any) -> dict[str, Any]:
    """Return the method with its parameters."""
    return {"step_reward": {"reward": reward, "separator": separator, **params}}


def separators(tokenizer: Any, answers: Sequence[Sequence[int]]) -> list[str]:
    """Return for each answer the letter that makes the fewest steps, but FEW of them in time to end it."""
    found = set[str]()
    for ids in answers:
        counts = {}
        for letter in sorted(set(_text(tokenizer, ids))):
            if letter.isprintable() and not letter.isspace() and letter != "\ufffd":
                counts[letter] = sum(end < len(ids) - 3 for end, _ in steps(tokenizer, ids, [letter]))
        enough = [letter for letter, count in counts.items() if count >= FEW]
        assert enough, counts
        found.add(min(enough, key=lambda letter: counts[letter]))
    return sorted(found)


def steps(tokenizer: Any, ids: Sequence[int], until: Sequence[str]) -> list[tuple[int, float]]:
    """Return where each step of an answer ends, and its score."""
    texts, ends, begin = [], [], 0
    for end in range(1, len(ids) + 1):
        if any(one in _content(_text(tokenizer, ids[begin:end]), until) for one in until):
            texts.append(_text(tokenizer, ids[:end])[len(_text(tokenizer, ids[:begin])) :])
            ends.append(end)
            begin = end
    return list(zip(ends, map(rule, bare_steps(texts, until)), strict=True))


def _content(text: str, until: Sequence[str]) -> str:
    before = None
    while text != before:
        before, text = text, text.lstrip()
        for one in until:
            text = text.removeprefix(one)
    return text


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
