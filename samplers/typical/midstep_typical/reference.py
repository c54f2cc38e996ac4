"""Locally typical sampling in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor


def keep(logits: Tensor, mass: Tensor, min_keep: Tensor) -> Tensor:
    """Say which tokens are the most typical ones that have the probability `mass` together.

    A token is the more typical the nearer its surprise -log p is to the row's entropy. In that order tokens stay until
    their probability reaches `mass` and their number `min_keep`; what ties with the last of them stays too. The best
    token may go. A token of -inf never stays.
    Source: Meister et al. 2022, arXiv 2202.00666.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        mass: [R] float32, above 0 and below 1.
        min_keep: [R] int64, 1 or more; where fewer tokens are above -inf, all of those stay.

    Returns:
        [R, V] bool.
    """
    absent = logits.isneginf()
    log_p = logits.double().log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p.masked_fill(absent, 0.0)).sum(-1)
    distance = (log_p + entropy[:, None]).abs()
    ordered, order = distance.sort(dim=-1, stable=True)
    reached = p.gather(1, order).cumsum(-1)
    last = torch.maximum((reached < mass[:, None]).sum(-1), min_keep - 1).clamp_max(logits.shape[1] - 1)
    # "Not beyond", not "up to": beside a logit of +inf everything is NaN, and everything stays.
    return ~(distance > ordered.gather(1, last[:, None])) & ~absent
