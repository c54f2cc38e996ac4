"""An answer under way: a path of the search's tree."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

Name = tuple[int, ...]
# "end": by the model; "length": the engine or `max_tokens`; "budget"; "steps": as many as allowed; "fault".
Fate = Literal["end", "length", "budget", "steps", "fault"]


@dataclass(frozen=True)
class Path:
    """A partial or whole answer.

    Args:
        name: its address: the child's number at each step, so that seeds depend on nothing that arrives.
        ids: token ids of the answer.
        open: how many of the last ids are of a step that is not finished.
        steps: the texts of its steps, each with its separator; the last one may be unfinished.
        scores: of the steps that the reward has read.
        logprob: the sum of its tokens' logprobs.
        read: tokens of prompt and answer that the reward has read.
        value: its scores as one number, as the search compares it; None: not scored.
        ended: why it does not go on; None: it may.
        fault: what was said when it died.
    """

    name: Name = ()
    ids: tuple[int, ...] = ()
    open: int = 0
    steps: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    logprob: float = 0.0
    read: int = 0
    value: float | None = None
    ended: Fate | None = None
    fault: str = ""

    @property
    def text(self) -> str:
        """Return its text."""
        return "".join(self.steps)

    @property
    def alive(self) -> bool:
        """Say whether it may go on."""
        return self.ended is None

    @property
    def dead(self) -> bool:
        """Say whether it was lost to a fault."""
        return self.ended == "fault"


def derived(seed: int, *name: int | str) -> int:
    """Return the seed of an address, 0 <= seed < 2^31, which every engine takes: a copy never repeats another."""
    return int.from_bytes(blake2b(repr((seed, *name)).encode(), digest_size=4).digest(), "big") >> 1


def child_seed(seed: int, name: Name, extra: str) -> int:
    """Return the seed of a continuation: those of one parent's children follow each other, as an engine draws them."""
    *parent, child = name or (0,)
    return (derived(seed, *parent, extra) + child) % 2**31


def uniform(seed: int, *name: int | str) -> float:
    """Return a number in [0, 1) that depends on the seed and the address only."""
    return int.from_bytes(blake2b(repr((seed, *name)).encode(), digest_size=8).digest(), "big") / 2**64
