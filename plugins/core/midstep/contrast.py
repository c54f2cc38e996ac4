"""Contrasts: a row moved away from what it says under other prompts, or towards it.

    y = x + sum_k w_k (x - u_k)        x: the request's row, u_k: its k-th companion's

That is every weighted sum of the rows whose weights add up to 1: classifier-free guidance, context-aware decoding,
PREADD, M3ID, proxy tuning. What is added to a whole row cancels, so raw logits and log-probabilities give one
distribution. Contrastive decoding's weights add up to something else, `scale`: s x stands for the first x then. This is
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
from .sampling import nucleus
from .statistics import Statistics, statistics

MOST = 3.0e38  # what was moved stays finite


@dataclass(frozen=True)
class Contrast:
    """How far each row is moved, and what is removed from it.

    Args:
        weights: by companion, [R] float32: positive is away from it. A companion that is not named weighs nothing.
        floor: [R] float32, the lowest logit, of the row itself, that may stay where the row is moved; -inf, or None
            for all rows: all may.
        share: [R] float32, top-p: only the row's own most likely tokens, of this probability together, may stay where
            the row is moved; 1, or None for all rows: all may.
        scale: [R] float32, what the weights of the rows add up to where the row is moved; None: 1 in all rows.
    """

    weights: Mapping[str, Tensor]
    floor: Tensor | None = None
    share: Tensor | None = None
    scale: Tensor | None = None


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
        contrast = self.contrast(partial(statistics, logits), rows)
        found = columns(contrast, list(rows.companions), rows, lambda: logits)
        return contrasted(logits, list(rows.companions.values()), *found)


def columns(
    contrast: Contrast, names: Sequence[str], rows: Rows, own: Callable[[], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights [R, K], the floor [R] and the scale [R] of a contrast, float32.

    Args:
        names: of the K companions.
        own: takes the rows' own logits, [R, V]; only for a share.
    """
    zero = torch.zeros_like(rows.position, dtype=torch.float32)
    weights = [contrast.weights.get(name, zero) for name in names]
    floor = zero - torch.inf if contrast.floor is None else contrast.floor
    if contrast.share is not None:
        floor = torch.maximum(floor, nucleus(own(), contrast.share))
    scale = zero + 1.0 if contrast.scale is None else contrast.scale
    return torch.stack(weights, 1) if weights else zero[:, None][:, :0], floor, scale


def plausible(share: Tensor, statistics: Statistics) -> Tensor:
    """Return the floor [R] below which a token is less likely than `share` [R] of the best one; 0 keeps all."""
    return statistics.top + share.log()


def contrasted(
    logits: Tensor, others: Sequence[Tensor], weights: Tensor, floor: Tensor, scale: Tensor | None = None
) -> Tensor:
    """Move each row; the formula is the module's.

    A token that is not finite stays as it is; one that is finite here and not under another prompt is taken to be the
    same there. A row whose weights are all 0 is left as it is, to the bit.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32).
        others: K tensors [R, V], likewise.
        weights: [R, K] float32, finite.
        floor: [R] float32; a token of a moved row whose logit is below it goes to -inf.
        scale: [R] float32, finite: s in y = s x + sum_k w_k (x - u_k) of a moved row; None is 1.

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
    if scale is not None:
        rest = (scale[:, None] - 1.0) * torch.where(there, x, 0.0)
        moved = torch.where(there & moves, (moved + rest).clamp(-MOST, MOST), moved)
    return moved.masked_fill(moves & (x < floor[:, None]), -torch.inf)
