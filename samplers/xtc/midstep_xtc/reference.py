"""XTC in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor


def keep(logits: Tensor, threshold: Tensor, applies: Tensor, special: Tensor) -> Tensor:
    """Remove the tokens that are at least `threshold` likely, but for the least likely of them.

    Where one token or none is that likely, nothing is removed, so nothing ever is above a threshold of 0.5. Of equally
    likely tokens the highest id counts as the least likely. A token of -inf never stays.
    Source: p-e-w 2024; text-generation-webui, modules/sampler_hijack.py; llama.cpp, src/llama-sampling.cpp.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        threshold: [R] float32, above 0, at most 1.
        applies: [R] bool, False removes nothing: what the coin said.
        special: [R, L] int64, token ids, -1 for none; a row where one of them would be removed is left alone.

    Returns:
        [R, V] bool.
    """
    logits = logits.float()
    # log_softmax works row by row; logsumexp sums in an order that depends on the number of rows.
    top_choice = (logits.log_softmax(-1) >= threshold.float().log()[:, None]) & applies[:, None]
    lowest = logits.masked_fill(~top_choice, torch.inf).amin(-1, keepdim=True)
    ids = torch.arange(logits.shape[1], device=logits.device)
    least = torch.where(top_choice & (logits == lowest), ids, -1).amax(-1, keepdim=True)
    remove = top_choice & (ids != least)
    protected = (remove.gather(1, special.clamp_min(0)) & (special >= 0)).any(-1, keepdim=True)
    return ~(remove & ~protected) & ~logits.isneginf()
