"""The request's own sampling parameters, applied by midstep to the rows that it draws.

The semantics are vLLM's: the penalties of OpenAI and of CTRL (Keskar et al. 2019, arXiv 1909.05858, section 4.1),
temperature, top-k, top-p, min-p. One thing differs: tokens tied with the one that crosses top-p all stay, as those tied
with top-k's last do, so that what stays never depends on an order of ties.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .operation import operation
from .rows import Ragged

INF = float("inf")


@dataclass(frozen=True)
class Sampling:
    """One request's sampling parameters. `top_k = 0`, `top_p = 1` and `min_p = 0` keep everything."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0

    def penalises(self) -> bool:
        """Say whether the generated ids are needed."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)

    def cuts(self) -> bool:
        """Say whether top-k, top-p or min-p removes anything."""
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0


DTYPES = {f.name: torch.int64 if f.type == "int" else torch.float32 for f in fields(Sampling)}


def penalise(
    logits: Tensor, history: Ragged, position: Tensor, repetition: Tensor, presence: Tensor, frequency: Tensor
) -> Tensor:
    """Apply the three penalties to `logits` [R, V] float32; the last `position` [R] ids of `history` are generated."""
    columns = torch.arange(history.ids.shape[1], device=logits.device)[None]
    real = columns < history.lengths[:, None]
    generated = real & (columns >= (history.lengths - position)[:, None])
    ids = history.ids.clamp_min(0)
    seen = torch.zeros_like(logits).scatter_add_(1, ids, real.float())
    count = torch.zeros_like(logits).scatter_add_(1, ids, generated.float())
    scale = torch.where(seen > 0, repetition[:, None], 1.0)
    logits = torch.where(logits > 0, logits / scale, logits * scale)
    return logits - frequency[:, None] * count - presence[:, None] * (count > 0)


def temper(logits: Tensor, temperature: Tensor) -> Tensor:
    """Divide `logits` [R, V] by `temperature` [R]; a row at temperature 0 is left as it is."""
    return logits / torch.where(temperature > 0, temperature, 1.0)[:, None]


def _cut(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Set to -inf what top-k, then top-p, then min-p remove: each keeps what is not below a threshold.

    Top-k: the k-th largest logit. Top-p: the smallest logit with less than `top_p` of what top-k left above it, so the
    token that crosses `top_p` stays. Min-p: the best logit + log `min_p`. Tokens that tie stay or go together, where
    Hugging Face and vLLM keep some of those at top-p's boundary; the best token always stays.
    Sources: Fan, Lewis, Dauphin 2018, arXiv 1805.04833; Holtzman et al. 2019, arXiv 1904.09751; Nguyen et al. 2024,
    arXiv 2407.01082.

    Args:
        logits: [R, V] float32, tempered, no NaN.
        top_k: [R] int64; 0, and V or more, are off.
        top_p: [R] float32; 1 is off.
        min_p: [R] float32; 0 is off.

    Returns:
        [R, V] float32.
    """
    vocabulary = logits.shape[1]
    ordered = logits.sort(dim=-1, descending=True).values
    k = torch.where((top_k > 0) & (top_k < vocabulary), top_k, vocabulary)
    threshold = ordered.gather(1, (k - 1)[:, None])
    crossing = _crossing(ordered.masked_fill(ordered < threshold, -INF), top_p)[:, None]
    floor = ordered[:, :1] + torch.log(min_p)[:, None]
    return logits.masked_fill(logits < torch.maximum(torch.maximum(threshold, crossing), floor), -INF)


cut = operation(_cut, "midstep.cutting:cut")


def _crossing(ordered: Tensor, top_p: Tensor) -> Tensor:
    """Return the logit [R] of the token that crosses `top_p` [R] in rows [R, V] that fall; -inf where it is off."""
    # In float64 the order of a sum does not show in what it is compared with.
    reached = ordered.double().softmax(-1).cumsum(-1)
    last = (reached < top_p[:, None]).sum(-1, keepdim=True).clamp_max(ordered.shape[1] - 1)
    return ordered.gather(1, last)[:, 0].masked_fill(top_p >= 1.0, -INF)


def _nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """Return the lowest logit of each row that top-p leaves, as `cut` defines it.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        top_p: [R] float32; 1 is off.

    Returns:
        [R] float32; -inf where top-p is off.
    """
    return _crossing(logits.float().sort(dim=-1, descending=True).values, top_p)


nucleus = operation(_nucleus, "midstep.cutting:nucleus")


def cut_numbers(top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Return the cuts, all [R], as the kernels take them: k, p and log min-p, [R, 3] float32."""
    return torch.stack((top_k.float(), top_p.float(), min_p.float().log()), 1)
