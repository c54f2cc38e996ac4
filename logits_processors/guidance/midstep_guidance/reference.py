"""Guidance in torch: the definition that the kernel is tested against."""

from collections.abc import Sequence

import torch
from torch import Tensor


def contrast(logits: Tensor, others: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Move each row away from, or towards, what the same row says under other prompts.

        y = x + sum_k w_k (x - u_k)

    That is every weighted sum of the rows whose weights add up to 1; constants of a row cancel, so raw logits and
    log-probabilities give one distribution. A token at -inf stays there; one that only another prompt has at -inf is
    taken to be the same under it. At weight 0 the row is left as it is, to the bit.

    Args:
        logits: [R, V] float32.
        others: K tensors [R, V] float32.
        weights: [R, K] float32; positive is away from, negative towards.

    Returns:
        [R, V] float32.
    """
    x = logits.float()
    moved = x
    for k, other in enumerate(others):
        apart = torch.where(other.isfinite() & x.isfinite(), x - other.float(), 0.0)
        moved = moved + weights[:, k : k + 1] * apart
    return moved
