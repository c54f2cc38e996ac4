"""The request's own sampling parameters, applied by midstep to the rows that it draws.

The semantics and the ties are vLLM's: the penalties of OpenAI and of CTRL (Keskar et al. 2019, arXiv 1909.05858,
section 4.1), top-k keeps every token tied with the k-th, top-p keeps the token that crosses p.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

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


def cut(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Set to -inf what top-k, then top-p, then min-p remove from tempered `logits` [R, V] float32."""
    vocabulary = logits.shape[1]
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    k = torch.where((top_k > 0) & (top_k < vocabulary), top_k, vocabulary)
    last = ordered.gather(1, (k - 1)[:, None])
    ordered = ordered.masked_fill(ordered < last, -INF)
    probabilities = torch.softmax(ordered, -1)
    before = probabilities.cumsum(-1) - probabilities
    ordered = ordered.masked_fill((before >= top_p[:, None]) & (top_p < 1.0)[:, None], -INF)
    ordered[:, 0] = logits.gather(1, order[:, :1])[:, 0]  # the best token always stays
    threshold = ordered[:, :1] + torch.log(min_p)[:, None]
    ordered = ordered.masked_fill(ordered < threshold, -INF)
    return torch.empty_like(logits).scatter_(1, order, ordered)
