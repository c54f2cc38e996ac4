"""Dynamic temperature and EDT in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor

BASE = 0.8  # EDT's N
GREEDY_BELOW = 1e-2  # EDT: a lower temperature is greedy
# Stands for a temperature of 0: the smallest difference of two float32 logits above 2^-9 becomes a dozen nats and more,
# and no difference that a model makes overflows, nor does its square.
LEAST = 1e-11


def entropy(logits: Tensor) -> Tensor:
    """Return -sum p log p of each row's softmax, nats, [R] float32; a row does not depend on the rows beside it."""
    # log_softmax works row by row; in float64 no order of summation shows in the float32 result.
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)).sum(-1, dtype=torch.float64).float()


def between(entropy: Tensor, finite: Tensor, low: Tensor, high: Tensor, exponent: Tensor) -> Tensor:
    """Return dynamic temperature's T = low + (high - low) (H / log n)^exponent.

    Source: kalomaze 2023; llama.cpp, src/llama-sampling.cpp, the temperature's extended form.

    Args:
        entropy: H, [R] float32, nats.
        finite: n, [R] float32, how many tokens are above -inf; where it is at most 1, T means nothing.
        low: [R] float32, at least 0.
        high: [R] float32, at least low.
        exponent: [R] float32, above 0.

    Returns:
        [R] float32, low..high, at least LEAST.
    """
    share = (entropy / finite.clamp_min(2.0).log()).clamp(0.0, 1.0)
    return (low + (high - low) * share.pow(exponent)).clamp_min(LEAST)


def falling(entropy: Tensor, t0: Tensor, theta: Tensor) -> Tensor:
    """Return EDT's T = t0 BASE^(theta / H).

    Source: Zhang, Bao, Huang 2024, arXiv 2403.14541.

    Args:
        entropy: H, [R] float32, nats.
        t0: [R] float32, above 0.
        theta: [R] float32, at least 0.

    Returns:
        [R] float32; LEAST where H is 0 or T below GREEDY_BELOW.
    """
    certain = entropy <= 0.0
    temperature = t0 * torch.pow(BASE, theta / torch.where(certain, 1.0, entropy))
    return torch.where(certain | (temperature < GREEDY_BELOW), LEAST, temperature)


def divide(logits: Tensor, temperature: Tensor) -> Tensor:
    """Divide each row's distances to its best token by its temperature.

    The softmax is that of logits / temperature; the best token keeps its logit, so a row stays finite however low the
    temperature. A token of -inf stays there, and a row with one token is left as it is.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        temperature: [R] float32, at least LEAST.

    Returns:
        [R, V] float32.
    """
    logits = logits.float()
    absent = logits.isneginf()
    top = logits.amax(-1, keepdim=True)
    return torch.where(absent, logits, top + (logits - top) / temperature[:, None])


def dynamic_temperature(logits: Tensor, low: Tensor, high: Tensor, exponent: Tensor) -> Tensor:
    """Divide by dynamic temperature's T; arguments as in `divide` and `between`, [R, V] float32."""
    finite = (~logits.isneginf()).sum(-1).float()
    return divide(logits, between(entropy(logits), finite, low.float(), high.float(), exponent.float()))


def edt(logits: Tensor, t0: Tensor, theta: Tensor) -> Tensor:
    """Divide by EDT's T; arguments as in `divide` and `falling`, [R, V] float32."""
    return divide(logits, falling(entropy(logits), t0.float(), theta.float()))
