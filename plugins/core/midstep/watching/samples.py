"""The samples of one request, of which the weakest are ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from .watched import News


class Sample(Protocol):
    """One sample; `live`: it runs, and nothing has ended it."""

    number: int
    live: bool
    steps: list[News]


S = TypeVar("S", bound=Sample)


@dataclass
class Samples(Generic[S]):
    """The n samples of one request.

    Step by step: once all n have begun, and every one that is still live has had its verdict on the step, or none to
    come, the one with the least value ends; of equal ones, the later sample. It goes on so until `keep` are left,
    those included that ended by themselves. A live sample without a score for a step is not compared at it, and
    nobody ends who is compared with nobody.

    Args:
        below: only what is less than this is ended; None: the weakest in any case.
    """

    n: int
    keep: int
    below: float | None
    _members: dict[int, S] = field(default_factory=dict)
    _step: int = 0
    _ended: int = 0

    def join(self, sample: S) -> None:
        """Take a sample that has begun."""
        self._members[sample.number] = sample

    def over(self) -> bool:
        """Say whether all have begun, and none is live."""
        return len(self._members) == self.n and not any(sample.live for sample in self._members.values())

    def weakest(self) -> tuple[S, int] | None:
        """Return the next sample that is to end, and the step because of which; it counts as ended from now on."""
        while len(self._members) == self.n and self.n - self._ended > self.keep:
            live = [sample for sample in self._members.values() if sample.live]
            if len(live) < 2 or any(not _judged(sample, self._step) for sample in live):
                return None
            step, self._step = self._step, self._step + 1
            values = {s.number: v for s in live if (v := s.steps[step].value) is not None}
            last = _least(values)
            if last is not None and (self.below is None or values[last] < self.below):
                self._ended += 1
                return self._members[last], step
        return None


def _judged(sample: Sample, step: int) -> bool:
    return len(sample.steps) > step and sample.steps[step].verdict is not None


def _least(values: Mapping[int, float]) -> int | None:
    """Return whose value is the least, None where there is nothing to compare."""
    return min(values, key=lambda number: (values[number], -number)) if len(values) > 1 else None
