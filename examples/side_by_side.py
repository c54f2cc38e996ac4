"""Prints answers beside one another, each with what midstep reports of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap
from time import perf_counter
from typing import Any

import midstep

PROMPT = "Write one sentence about the sea."
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a sampler: min_p": {"min_p": {"p": 0.2}},
    "with a stop: deepconf": {"deepconf": {"threshold": 5.0, "window": 8}},
}


@dataclass(frozen=True)
class Shown:
    """One answer as a column."""

    title: str
    text: str
    tokens: int
    seconds: float
    ended: str
    report: midstep.Report | None

    def lines(self, width: int) -> Iterator[str]:
        """Yield the column's lines."""
        yield from (self.title, "-" * len(self.title))
        yield from wrap(self.text.strip(), width)
        yield from ("", f"{self.tokens} tokens, {self.tokens / self.seconds:.1f} tokens/s", f"ended by: {self.ended}")
        for name, method in (self.report.methods if self.report else {}).items():
            yield f"{name}: changed {method.changed} of {method.tokens} tokens"
        if self.report and self.report.stop:
            stop = self.report.stop
            yield f"{stop.rule}: stopped at token {stop.position + 1},"
            yield f"  {stop.value:.2f} is below {stop.threshold:.2f}"


def show(generate: Callable[[str, dict[str, str]], Shown]) -> None:
    """Ask for each of METHODS, the first time only to warm up, and print the answers side by side."""
    generate("warm-up", {})
    columns = [generate(title, midstep.request(**methods) if methods else {}) for title, methods in METHODS.items()]
    width = max(24, (shutil.get_terminal_size((110, 24)).columns - 6) // len(columns))
    print(f"\nprompt: {PROMPT}\n")
    for line in zip_longest(*(c.lines(width) for c in columns), fillvalue=""):
        print("   ".join(cell.ljust(width) for cell in line).rstrip())


def timed(ask: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `ask` returns, and the seconds it took."""
    started = perf_counter()
    return ask(), perf_counter() - started
