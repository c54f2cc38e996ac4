"""P-less in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor

TOLERANCE = 1e-6  # relative, on a probability; in a uniform row p and c differ in the last bit


def keep(logits: Tensor, norm: Tensor) -> Tensor:
    """Say which tokens are at least as likely as the threshold.

    The threshold is the collision probability c = sum p^2, with which two draws from the row agree; with `norm` it is
    (V c - 1) / (V - 1), V the number of finite tokens, which is never larger. The best token is never less likely than
    c, so it stays; a uniform row keeps all its tokens. A token of -inf never stays.
    Source: Tan, Wu, Howard 2025, arXiv 2509.23234.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        norm: [R] bool.

    Returns:
        [R, V] bool.
    """
    absent = logits.isneginf()
    log_p = logits.double().log_softmax(-1)
    collision = log_p.exp().square().sum(-1)
    count = (~absent).sum(-1)
    relaxed = ((count * collision - 1) / (count - 1).clamp_min(1)).clamp_min(0)
    threshold = torch.where(norm, relaxed, collision).log() - TOLERANCE
    # "Not below", not "at or above": beside a logit of +inf everything is NaN, and everything stays.
    return ~(log_p < threshold[:, None]) & ~absent
