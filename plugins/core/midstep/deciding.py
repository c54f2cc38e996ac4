"""What the stops of a call have decided so far, and what one more adds: the first rule that acts counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .methods import END, FORCE
from .operation import operation


class Acts(NamedTuple):
    """What is decided of the R rows of a call, [R], as in `midstep.call.Call`."""

    rule: Tensor  # int64
    end: Tensor  # bool
    value: Tensor  # float32
    threshold: Tensor  # float32
    forced: Tensor  # int64


def _decided(
    action: Tensor,
    value: Tensor,
    threshold: Tensor,
    instead: Tensor,
    base: Tensor,
    within: Tensor,
    position: Tensor,
    min_tokens: Tensor,
    index: int,
    now: Acts,
) -> Acts:
    """Add what one stop decided of its r rows; an end comes into force from the request's `min_tokens` on.

    Args:
        action: [r] int64, and value, threshold [r] float32, instead [r] int64, as in `midstep.methods.Decision`.
        base: [r] int64, where the stop's sequences begin among those of its request.
        within: [R] int64, where each of the call's rows is among the r; -1 where it does not use the stop.
        position: [R] int64, and min_tokens [R] int64.
        index: of the stop among the call's methods.
    """
    mine = within.clamp_min(0)
    action, waits = action[mine], instead[mine] >= 0
    ends = (action == END) & (position + 1 >= min_tokens)
    forces = (action >= FORCE) & ~waits
    acts = (within >= 0) & (now.rule == 0) & (ends | forces)
    return Acts(
        torch.where(acts, index + 1, now.rule),
        now.end | (acts & ends),
        torch.where(acts, value[mine], now.value),
        torch.where(acts, threshold[mine], now.threshold),
        torch.where(acts & forces, base[mine] + action - FORCE + 1, now.forced),
    )


decided = operation(_decided, "midstep.bookkeeping:decided")
