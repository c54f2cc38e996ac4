"""Epsilon and eta in torch: the definitions that the kernels are tested against."""

import torch
from torch import Tensor


def epsilon(logits: Tensor, cutoff: Tensor) -> Tensor:
    """Say which tokens have at least the probability `cutoff`.

    A token of exactly that probability stays, and so do the best token and its ties, whatever theirs is. A token of
    -inf never stays.
    Source: Hewitt, Manning, Liang 2022, arXiv 2210.15191.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        cutoff: [R] float32, above 0 and below 1.

    Returns:
        [R, V] bool.
    """
    return _at_least(logits, logits.double().log_softmax(-1), cutoff.double().log())


def eta(logits: Tensor, cutoff: Tensor) -> Tensor:
    """Say which tokens have at least the probability min(cutoff, sqrt(cutoff) exp(-H)), H the row's entropy in nats.

    The second term takes over where the row is less sure than -log(cutoff) / 2. The rest is as in `epsilon`.
    Source: Hewitt, Manning, Liang 2022, arXiv 2210.15191; its alpha is sqrt(cutoff) here.
    """
    log_p = logits.double().log_softmax(-1)
    entropy = -(log_p.exp() * log_p.masked_fill(logits.isneginf(), 0.0)).sum(-1)
    log_cutoff = cutoff.double().log()
    return _at_least(logits, log_p, torch.minimum(log_cutoff, log_cutoff / 2 - entropy))


def _at_least(logits: Tensor, log_p: Tensor, threshold: Tensor) -> Tensor:
    threshold = torch.minimum(threshold, log_p.amax(-1))
    # "Not below", not "at or above": beside a logit of +inf everything is NaN, and everything stays.
    return ~(log_p < threshold[:, None]) & ~logits.isneginf()
