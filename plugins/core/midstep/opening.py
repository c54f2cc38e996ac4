"""What a call knows of its rows before any method runs: whose memory is gone, and who was fed another token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .guards import HISTORY, STATE
from .operation import operation

SCRATCH = 0  # the slot of rows whose result is thrown away
DEPTH = 8  # positions that a slot remembers


class Opened(NamedTuple):
    """The R rows of a call, all [R] int64.

    Args:
        position: at least 0.
        written: the slots that the call writes; rows that the engine throws away write to the scratch slot.
        fault: 0, or 1 + an index in FAULTS.
        culprit: 1 + the index of the method at fault.
    """

    position: Tensor
    written: Tensor
    fault: Tensor
    culprit: Tensor


def _opened(
    slots: Tensor, position: Tensor, fed: Tensor, tag: Tensor, drawn: Tensor, first: Tensor, keeper: Tensor
) -> Opened:
    """Compare what was fed with what was drawn, and look for what is remembered.

    Args:
        slots: [R] int64.
        position: [R] int64, the tokens that each request has generated; negative for a row that is thrown away.
        fed: [R] int64, the token that the engine fed; negative where it does not show it.
        tag: [slots, DEPTH] int64, the position of what is remembered there, and `drawn`: the token drawn there.
        first: [R] int64, 1 + the index of the row's first method.
        keeper: [R] int64, that of its first method that needs its memory; 0 for none.
    """
    before = position - 1
    known = (position <= 0) | (tag[slots, before % DEPTH] == before)
    other = (fed >= 0) & (position > 0) & known & (fed != drawn[slots, before % DEPTH])
    lost = ~known & (keeper > 0)
    return Opened(
        position.clamp_min(0),
        torch.where(position >= 0, slots, SCRATCH),
        torch.where(lost, STATE, torch.where(other, HISTORY, 0)),
        torch.where(lost, keeper, torch.where(other, first, 0)),
    )


opened = operation(_opened, "midstep.bookkeeping:opened")
