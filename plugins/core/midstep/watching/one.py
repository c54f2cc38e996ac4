"""One watched request, as the engine's core knows it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .method import StepReward
from .steps import Finder
from .watched import News, Watched


@dataclass(eq=False)
class One:
    """One watched request.

    Args:
        number: of the sample.
        texts: of its steps.
        changed: the numbers of the steps of which there is news.
        unread: tokens that came before the tokenizer was there.
        sent: the judge's process that knows its steps, and how many of them.
    """

    key: str
    watched: Watched
    asked: StepReward.Params
    number: int
    live: bool = True
    steps: list[News] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    unread: list[int] = field(default_factory=list)
    finder: Finder | None = None
    sent: tuple[int, int] = (0, 0)
    ended: News | None = None

    def note(self, number: int, **known: Any) -> None:
        """Write down what is known of a step now."""
        self.steps[number] = replace(self.steps[number], **known)
        self.changed.add(number)
