"""What a row of logits is like, in a few numbers: most keep rules are a threshold made of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .operation import operation


class Statistics(NamedTuple):
    """Of each row's finite logits x with p = softmax(x), all [R] float32.

    Args:
        top: the largest x.
        lse: log sum exp(x), so that log p = x - lse.
        entropy: -sum p log p, nats.
        collision: log sum p^2.
        finite: how many they are.
        spread: the sum of (x - mean)^2; divided by finite - 1, their variance.
    """

    top: Tensor
    lse: Tensor
    entropy: Tensor
    collision: Tensor
    finite: Tensor
    spread: Tensor


def _statistics(logits: Tensor) -> Statistics:
    """Take the statistics of each row.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN; -inf is left out of every sum.

    Returns:
        [R] each; of a row without a finite token only `finite`, 0, means anything.
    """
    logits = logits.float()
    there = ~logits.isneginf()
    # In float64 the order of a sum, which torch splits among threads, does not show in the float32 result.
    log_p = logits.double().log_softmax(-1)
    p = log_p.exp()
    finite = there.sum(-1).float()
    held = logits.double().masked_fill(~there, 0.0)
    apart = (held - (held.sum(-1) / finite)[:, None]).masked_fill(~there, 0.0)
    return Statistics(
        top=logits.amax(-1),
        lse=logits.double().logsumexp(-1).float(),
        entropy=-(p * log_p.masked_fill(~there, 0.0)).sum(-1).float(),
        collision=torch.logsumexp(2 * log_p, -1).float(),
        finite=finite,
        spread=apart.square().sum(-1).float(),
    )


statistics = operation(_statistics, "midstep.threshold:statistics")
