"""The requests of a scheduler process that use midstep, their companions, and which rows of a batch they are.

SGLang keeps a batch's sampling parameters in a SamplingBatchInfo, which it filters, merges and copies as rows come and
go. `Rows` travels on it. It is made anew only when a row changes, so that a decoding step compares one reference.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sglang.srt.sampling.sampling_params import TOP_K_ALL

import midstep
from midstep.record import Event

ON_REQUEST = "_midstep"  # the attribute of a Req
ON_BATCH = "_midstep_rows"  # the attribute of a SamplingBatchInfo
ALONE = "companion"  # the fault of a row whose companion is not there


@dataclass(eq=False)
class Steered:
    """One request that midstep draws, as long as its Req lives.

    Args:
        prompt_length: tokens of the prompt as the scheduler sees it, placeholders of images included.
        max_length: prompt and generated tokens of any request of this server.
        max_requests: requests that this server runs at once.
        end: the number of generated tokens at which midstep ends it, and `reason` says why.
    """

    admission: midstep.Admission
    request: weakref.ref[Any]
    prompt_length: int
    max_length: int
    max_requests: int
    end: int | None = None
    reason: str = ""
    ledger: midstep.Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = midstep.Ledger(self.admission)

    @property
    def entry(self) -> midstep.Admission:
        """Return what the pipeline knows of the row."""
        return self.admission

    @property
    def main(self) -> Steered:
        """Return the request to which the row belongs."""
        return self

    def gone(self) -> bool:
        """Say whether the engine is done with the request."""
        request = self.request()
        return request is None or request.finished()

    def decide(self, event: Event) -> None:
        """Note where and why the request ends, if `event` ends it.

        It keeps the token of that call, but for one that was drawn without a companion: that is no guided text.
        """
        reason = midstep.reason(event)
        if reason is not None and self.end is None:
            self.end, self.reason = event.position + 1, reason
            if event.fault == ALONE:
                self.end = event.position
                self.ledger.add(event)

    def fail(self, position: int, fault: str) -> None:
        """End the request at `position` because this adapter could not steer it."""
        nan = math.nan
        event = Event(self.admission.key, position, -1, True, "", nan, nan, fault, "internal", (), None)
        self.ledger.add(event)
        self.decide(event)


@dataclass(frozen=True, eq=False)
class Follower:
    """One companion's request, whose row is drawn with that of its main request."""

    entry: midstep.Shadow
    main: Steered
    prompt_length: int


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch's rows: who uses midstep, companions included, and which of the others have a top-k of their own."""

    steered: tuple[Steered | Follower | None, ...]
    top_k: tuple[bool, ...]

    @cached_property
    def indices(self) -> list[int]:
        """Return where the rows with midstep are."""
        return [i for i, one in enumerate(self.steered) if one is not None]

    @cached_property
    def who(self) -> list[Steered | Follower]:
        """Return the requests of these rows."""
        return [one for one in self.steered if one is not None]

    @cached_property
    def mains(self) -> list[Steered]:
        """Return the requests of these rows without companions'."""
        return [one for one in self.steered if isinstance(one, Steered)]

    @cached_property
    def others_need_top_k(self) -> bool:
        """Say whether a row without midstep has a top-k. Rows with midstep have 1, which must not cost the others."""
        return any(cut for cut, one in zip(self.top_k, self.steered, strict=True) if one is None)


def of(request: Any) -> Steered | None:
    """Return what midstep keeps on `request`, a Req; None for a companion's."""
    found = request.__dict__.get(ON_REQUEST)
    return found if isinstance(found, Steered) else None


def _row(request: Any) -> Steered | Follower | None:
    found: Steered | Follower | None = request.__dict__.get(ON_REQUEST)
    return found


def begun(_: None, info: Any, batch: Any, *args: Any, **kwargs: Any) -> None:
    """AFTER SamplingBatchInfo.adjusted_from_schedule_batch: find the rows of a new prefill batch."""
    requests: Sequence[Any] = batch.reqs
    steered = tuple(None if _is_middle_chunk(request) else _row(request) for request in requests)
    setattr(info, ON_BATCH, Rows(steered, tuple(r.sampling_params.top_k != TOP_K_ALL for r in requests)))


def _is_middle_chunk(request: Any) -> bool:
    """Say whether a part of the prompt, or of what a retracted request had, is prefilled: its draw is discarded."""
    end: int | None = request.extend_end
    return end is not None and end < len(request.full_untruncated_fill_ids)


def filtered(_: None, info: Any, keep: Sequence[int], *args: Any, **kwargs: Any) -> None:
    """AFTER SamplingBatchInfo.adjusted_filter_batch: keep the rows that the engine keeps."""
    rows = _rows(info)
    if rows is not None:
        setattr(info, ON_BATCH, Rows(tuple(rows.steered[i] for i in keep), tuple(rows.top_k[i] for i in keep)))


def merged(_: None, info: Any, other: Any, *args: Any, **kwargs: Any) -> None:
    """AFTER SamplingBatchInfo.adjusted_merge_batch: append the other batch's rows."""
    count = len(other)
    left, right = _rows(info) or _plain(info, len(info) - count), _rows(other) or _plain(other, count)
    setattr(info, ON_BATCH, Rows(left.steered + right.steered, left.top_k + right.top_k))


def copied(copy: Any, info: Any, *args: Any, **kwargs: Any) -> None:
    """AFTER SamplingBatchInfo.copy_for_forward, which copies nothing but the fields it knows."""
    setattr(copy, ON_BATCH, _rows(info))


def _rows(info: Any) -> Rows | None:
    found: Rows | None = getattr(info, ON_BATCH, None)
    return found


def _plain(info: Any, count: int) -> Rows:
    return Rows((None,) * count, (bool(info.need_top_k_sampling),) * count)
