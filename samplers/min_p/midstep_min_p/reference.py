"""Min-p in torch: the definition that the kernel is tested against."""

from torch import Tensor


def keep(logits: Tensor, p: Tensor) -> Tensor:
    """Say which tokens are at least `p` times as likely as the best one.

    That is x >= max x + log p: no softmax is needed. A token of exactly that probability stays, so p = 1 keeps the best
    and its ties; p = 0 keeps everything. A token of -inf never stays.
    Source: Nguyen et al. 2025 (ICLR), arXiv 2407.01082.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        p: [R] float32, 0..1.

    Returns:
        [R, V] bool.
    """
    logits = logits.float()
    threshold = logits.amax(-1) + p.log()
    # "Not below", not "at or above": beside a logit of +inf, p = 0 gives a threshold of NaN, and keeps everything.
    return ~(logits < threshold[:, None]) & ~logits.isneginf()
