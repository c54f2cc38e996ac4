"""Top-a in torch: the definition that the kernel is tested against, and the way on a CPU."""

from torch import Tensor


def keep(logits: Tensor, a: Tensor, power: Tensor) -> Tensor:
    """Say which tokens are at least `a * p_max^power` likely. A token of -inf never stays.

    With log p = x - lse that is x >= max x + log a + (power - 1) * log p_max: one threshold, no softmax of the row. No
    rounding may lift it above the best token, so log p_max is at most 0; a = 0 keeps everything.
    Source: Peng (BlinkDL) 2022, README of RWKV-LM.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        a: [R] float32, 0..1.
        power: [R] float32, >= 1.

    Returns:
        [R, V] bool.
    """
    logits = logits.float()
    best = logits.log_softmax(-1).amax(-1).clamp(max=0)
    threshold = logits.amax(-1) + a.log() + (power - 1) * best
    return ~(logits < threshold[:, None]) & ~logits.isneginf()
