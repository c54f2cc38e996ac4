"""Quadratic sampling in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor


def bend(logits: Tensor, factor: Tensor, curve: Tensor) -> Tensor:
    """Replace each logit's distance to the best by a polynomial of it.

    With m = max x, d = x - m, k = (3 - curve) / 2 and s = (curve - 1) / 2: y = m - factor d^2 (k - s d), which is
    kalomaze's -(k factor) d^2 + (s factor) d^3 + m, factored. It rises with x, so the order stays and the best token
    keeps its logit. A token of -inf stays there.
    Source: kalomaze 2024; text-generation-webui, modules/sampler_hijack.py.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        factor: [R] float32, at least 0; 0 leaves the row as it is.
        curve: [R] float32, 1..3.

    Returns:
        [R, V] float32.
    """
    logits = logits.float()
    absent = logits.isneginf()
    top = logits.amax(-1, keepdim=True)
    below = (logits - top).masked_fill(absent, 0.0)
    factor, curve = factor.float()[:, None], curve.float()[:, None]
    bent = top - factor * (below * below) * ((3.0 - curve) * 0.5 - (curve - 1.0) * 0.5 * below)
    return torch.where(absent | (factor == 0.0), logits, bent)
