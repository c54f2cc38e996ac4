"""DeepConf's two measures in torch: the definition that the kernels are tested against."""

import torch
from torch import Tensor

MOST = 32  # the most tokens a confidence can be taken over


def confidence(logits: Tensor, k: Tensor) -> Tensor:
    """Measure how sure the model is of its next token: C = -(1/k) sum over the top k of log p.

    The more peaked the distribution, the less likely the other k - 1, and the higher C. The logarithm is natural, the
    softmax is that of the whole row, at temperature 1. A row's result does not depend on the rows beside it.
    Source: Fu et al. 2025, arXiv 2508.15260, equation 2.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        k: [R] int64, 1..MOST. Where fewer tokens are above -inf, the mean is over those.

    Returns:
        [R] float32; NaN for a row that is -inf throughout.
    """
    # log_softmax works row by row; logsumexp sums in an order that depends on the number of rows.
    logprobs = logits.float().log_softmax(-1)
    best = logprobs.topk(min(MOST, logits.shape[1]), -1).values
    counted = (torch.arange(best.shape[1], device=best.device) < k[:, None]) & ~best.isneginf()
    # In float64 no order of summation shows in the float32 result.
    total = torch.where(counted, -best, 0.0).sum(-1, dtype=torch.float64)
    return (total / counted.sum(-1)).float()


def window_mean(ring: Tensor, confidence: Tensor, position: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Store a confidence, and average over the window that ends here: DeepConf's group confidence.

    The mean is summed from the ring each time, so it does not drift as a running sum would; while the window is not yet
    full it is over what there is. Repeating a position, on its own result too, gives the same.
    Source: Fu et al. 2025, arXiv 2508.15260, equation 3.

    Args:
        ring: [R, W] float32, as it was left at the position before. What was never stored may be anything.
        confidence: [R] float32, of this position.
        position: [R] int64, 0 at the first token.
        window: [R] int64, tokens, 1..W.

    Returns:
        The new ring, [R, W] float32, and the mean over the last min(position + 1, window) positions, [R] float32.
    """
    # A padded row may hold any number: it must still point inside the ring.
    window = window.clamp(1, ring.shape[1])
    position = position.clamp_min(0)
    ring = ring.scatter(1, (position % window)[:, None], confidence[:, None])
    live = torch.minimum(position + 1, window)
    counted = torch.arange(ring.shape[1], device=ring.device) < live[:, None]
    # In float64 no order of summation shows in the float32 result.
    total = torch.where(counted, ring, 0.0).sum(-1, dtype=torch.float64)
    return ring, (total / live).float()
