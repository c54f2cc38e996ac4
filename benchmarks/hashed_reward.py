"""The reward of `search.py` as midstep has it, in Python and, where `installed` has been called, in a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import hashed

import midstep

SEAM = 1


class Free(midstep.Reward):
    """Answers at once."""

    name = "free"
    pace: ClassVar[float] = 0.0

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._asked, self._known = hashed.Asked(self.pace), dict[tuple[str, tuple[str, ...]], float]()

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Ask about the text as it stands; what it was before was asked about then, where a search goes by steps."""
        begins = [(prompt, tuple(steps[: i + 1])) for i in range(len(steps))]
        (self._known[begins[-1]],) = await self._asked.ask(["".join(steps)])
        return [self._known.get(begin, 0.5) for begin in begins]

    def spends(self, known: int, new: int) -> int:
        """Return 0."""
        return 0


class Paced(Free):
    """Answers when its turn has come."""

    name = "paced"
    pace = hashed.PACE


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Reward]]:
    """Offer both."""
    return [Free, Paced]


def installed(folder: Path) -> None:
    """Make of a folder one in which a server that has it on its path finds the rewards as an installed plugin's."""
    info = folder / "midstep_hashed-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: midstep-hashed\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[midstep]\nhashed = hashed_reward\n")
