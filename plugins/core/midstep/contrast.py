"""Contrasts: a row moved away from what it says under other prompts, or towards it.

    y = x + sum_k w_k (x - u_k)        x: the request's row, u_k: its k-th companion's

That is every weighted sum of the rows whose weights add up to 1: classifier-free guidance, context-aware decoding,
PREADD, M3ID. What is added to a whole row cancels, so raw logits and log-probabilities give one distribution. This is
the definition and the CPU path; `midstep.guided` is the speed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .methods import LogitsProcessor
from .rows import Rows
from .statistics import Statistics, statistics

MOST = 3.0e38  # what was moved stays finite


@dataclass(frozen=True)
class Contrast:
    """How far each row is moved, and what is removed from it.

    Args:
        weights: by companion, [R] float32: positive is away from it. A companion that is not named weighs nothing.
        floor: [R] float32, the lowest logit, of the row itself, that may stay where the row is moved; -inf, or None
            for all rows: all may.
    """

    weights: Mapping[str, Tensor]
    floor: Tensor | None = None


class Guide(LogitsProcessor):
    """A logits processor that is a contrast with its companions: it says how far, and the core does it.

    On a GPU that is one kernel that reads no companion of weight 0, and that draws at once where nothing comes after.
    """

    @abstractmethod
    def contrast(self, own: Callable[[], Statistics], rows: Rows) -> Contrast:
        """Say how far each row is moved.

        Args:
            own: takes the statistics of the rows' own logits; one more read of them.
        """

    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return the moved logits, [R, V] float32."""
        weights, floor = columns(self.contrast(partial(statistics, logits), rows), list(rows.companions), rows)
        return contrasted(logits, list(rows.companions.values()), weights, floor)


def columns(contrast: Contrast, names: Sequence[str], rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the weights [R, K] and the floor [R] of a contrast, float32; `names` are those of the K companions."""
    zero = torch.zeros_like(rows.position, dtype=torch.float32)
    weights = [contrast.weights.get(name, zero) for name in names]
    floor = zero - torch.inf if contrast.floor is None else contrast.floor
    return torch.stack(weights, 1) if weights else zero[:, None][:, :0], floor


def plausible(share: Tensor, statistics: Statistics) -> Tensor:
    """Return the floor [R] below which a token is less likely than `share` [R] of the best one; 0 keeps all."""
    return statistics.top + share.log()


def contrasted(logits: Tensor, others: Sequence[Tensor], weights: Tensor, floor: Tensor) -> Tensor:
    """Move each row; the formula is the module's.

    A token that is not finite stays as it is; one that is finite here and not under another prompt is taken to be the
    same there. A row whose weights are all 0 is left as it is, to the bit.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32).
        others: K tensors [R, V], likewise.
        weights: [R, K] float32, finite.
        floor: [R] float32; a token of a moved row whose logit is below it goes to -inf.

    Returns:
        [R, V] float32.
    """
    x = moved = logits.float()
    there = x.isfinite()
    for k, other in enumerate(others):
        weight = weights[:, k : k + 1]
        u = other.float()
        apart = torch.where(there & u.isfinite(), x - u, 0.0)
        step = (moved + weight * apart).clamp(-MOST, MOST)
        moved = torch.where(there & (weight != 0.0), step, moved)
    moves = (weights != 0.0).any(-1, keepdim=True)
    return moved.masked_fill(moves & (x < floor[:, None]), -torch.inf)
