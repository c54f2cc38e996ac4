"""Top-n-sigma in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor


def keep(logits: Tensor, n: Tensor, ddof: Tensor) -> Tensor:
    """Say which tokens lie at most `n` standard deviations below the best one.

    The deviation is that of the row's finite logits: a masked token counts neither as a value nor as a token. A row
    with one of them has none, so the token stays whatever `ddof` is. A token exactly at the threshold stays.
    Source: Tang et al. 2024, arXiv 2411.07641.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        n: [R] float32, above 0.
        ddof: [R] int64, 0 or 1: the deviation divides by the number of tokens minus this.

    Returns:
        [R, V] bool.
    """
    logits = logits.float()
    absent = logits.isneginf()
    count = (~absent).sum(-1)
    # In float64 no order of summation shows in the float32 threshold.
    total = logits.masked_fill(absent, 0.0).sum(-1, dtype=torch.float64)
    apart = (logits - (total / count.clamp_min(1))[:, None]).masked_fill(absent, 0.0)
    sigma = (apart.square().sum(-1) / (count - ddof).clamp_min(1)).sqrt()
    threshold = (logits.amax(-1) - n * sigma).float()
    return ~(logits < threshold[:, None]) & ~absent
