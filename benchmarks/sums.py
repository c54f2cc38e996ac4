"""Sums of reasoning-gym's chain_sum, worked out a line at a time: prompts, the exact reward of a step, and a noisy one.

4 - 1 + 7 = ?
4 - 1 = 3
3 + 7 = 10
Answer: 10
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

SEPARATOR = "\n"
SHOTS = 8
LINE = re.compile(r"^\s*(-?\d+) ([+-]) (\d+) = (-?\d+)\s*$")
ANSWER = re.compile(r"^\s*Answer: (-?\d+)\s*$")
RIGHT, WRONG = 0.95, 0.05


@dataclass(frozen=True)
class Sum:
    """One task: its expression, such as `4 - 1 + 7`, and its answer."""

    expression: str
    answer: str

    @property
    def lines(self) -> list[str]:
        """Return it worked out."""
        first, *rest = self.expression.split()
        total, lines = int(first), []
        for sign, term in zip(rest[::2], rest[1::2], strict=True):
            before, total = total, total + int(term) * (1 if sign == "+" else -1)
            lines.append(f"{before} {sign} {term} = {total}")
        return [*lines, f"Answer: {total}"]


def generated(count: int, terms: int, seed: int) -> list[Sum]:
    """Return tasks of reasoning-gym: sums of one-digit numbers, no two of them alike."""
    from reasoning_gym import create_dataset

    found: dict[str, Sum] = {}
    sizes = {"min_terms": terms, "max_terms": terms, "min_digits": 1, "max_digits": 1}
    for entry in create_dataset("chain_sum", size=2 * count, seed=seed, **sizes):
        found.setdefault(entry["metadata"]["expression"], Sum(entry["metadata"]["expression"], entry["answer"]))
    return list(found.values())[:count]


def prompt(task: Sum, shots: Sequence[Sum], end: str) -> str:
    """Return a task behind others that are worked out; `end` is the end token's text, which ends each of them."""
    worked = "".join(f"{shot.expression} = ?\n{SEPARATOR.join(shot.lines)}{end}\n" for shot in shots)
    return f"{worked}{task.expression} = ?\n"


def right(task: Sum, text: str) -> bool:
    """Say whether a whole answer is right: its last line names the sum."""
    said = ANSWER.match(text.strip().rpartition(SEPARATOR)[2])
    return said is not None and said[1] == task.answer


def exact(task: Sum, steps: Sequence[str], *, begun: bool = False) -> list[float]:
    """Return a score per step: whether it and all before it are what they should be. An oracle: it knows the answer.

    Args:
        begun: the last step may be under way: then it is right as far as it has come.
    """
    scores, well = [], True
    for place, step in enumerate(steps):
        wanted, said = task.lines[place] if place < len(task.lines) else None, " ".join(step.split())
        open_ = begun and place == len(steps) - 1
        well = well and wanted is not None and (wanted.startswith(said) if open_ else said == wanted)
        scores.append(RIGHT if well else WRONG)
    return scores


def noisy(task: Sum, steps: Sequence[str], flips: float, *, begun: bool = False) -> list[float]:
    """Return the exact scores, a share of them turned round: the same ones whenever the same text is asked about."""
    scores = []
    for place, score in enumerate(exact(task, steps, begun=begun)):
        text = repr((task.expression, tuple(step.strip() for step in steps[: place + 1])))
        drawn = int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32
        scores.append(RIGHT + WRONG - score if drawn < flips else score)
    return scores
