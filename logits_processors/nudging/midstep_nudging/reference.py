"""Nudging in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor

BASE, NUDGE = 0, 1  # whose turn it was
BITS = 32  # tokens that one number of `starts` stands for


def nudge(
    logits: Tensor, nudger: Tensor, mode: Tensor, threshold: Tensor, ends: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Say whose turn it is, and return that row.

    With the base's best token b, its probability p, and the nudger's best token n among those that are finite in the
    base's row: the turn is the base's where b is no end token, and

    - it was the base's and the base is sure, p >= threshold; or
    - it was the nudger's, n begins a word and is no end token, and the base agrees, b = n, or is sure.

    So the nudger's first word is its own in any case, and an end token is only ever drawn from its row. The lowest id
    is the best of tokens that tie.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), the base's, no NaN.
        nudger: [R, V], likewise; what is not finite cannot be drawn.
        mode: [R] int64, whose turn it was: BASE or NUDGE.
        threshold: [R] float32.
        ends: [R, E] int64, the end tokens, filled with -1.
        starts: [R, W] int64, which tokens begin a word: bit i of number j for token BITS j + i.

    Returns:
        The row [R, V] float32: the base's without its end tokens, or the nudger's, -inf wherever the base's is; the
        base's as it is where that leaves the nudger none. And whose turn it is, [R] int64.
    """
    x, u = logits.float(), nudger.float()
    u = u.masked_fill(x.isneginf() | ~u.isfinite(), -torch.inf)
    best, following = x.argmax(-1), u.argmax(-1)
    # 1 / sum exp(x - top), in float64: there the order of a sum, which torch splits among threads, does not show
    p = 1.0 / (x - x.amax(-1, keepdim=True)).double().exp().sum(-1)
    sure = p.float() >= threshold
    number = starts.gather(1, (following // BITS).clamp_max(starts.shape[1] - 1)[:, None])[:, 0]
    begins = (number >> following % BITS & 1 == 1) & (following // BITS < starts.shape[1])
    returns = begins & ~_among(following, ends) & ((best == following) | sure)
    base = ~_among(best, ends) & torch.where(mode == NUDGE, returns, sure)
    is_end = torch.zeros_like(x).scatter_add_(1, ends.clamp_min(0), (ends >= 0).float()) > 0
    theirs = torch.where(u.isfinite().any(-1, keepdim=True), u, x)
    left = torch.where(base[:, None], x.masked_fill(is_end, -torch.inf), theirs)
    return left, torch.where(base, BASE, NUDGE)


def _among(tokens: Tensor, ends: Tensor) -> Tensor:
    return (tokens[:, None] == ends).any(-1)
