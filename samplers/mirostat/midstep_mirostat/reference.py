"""Mirostat 2 in torch: the definition that the kernel is tested against."""

import math

import torch
from torch import Tensor

from midstep import noise

LN2 = math.log(2.0)


def keep(logits: Tensor, mu: Tensor) -> Tensor:
    """Say which tokens surprise by at most `mu` bits: -log2 p <= mu; the best token and its ties always stay.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        mu: [R] float32, bits.

    Returns:
        [R, V] bool; a token at -inf never stays.
    """
    # log_softmax works row by row; logsumexp sums in an order that depends on the number of rows.
    log_p = logits.float().log_softmax(-1)
    threshold = torch.minimum(mu * -LN2, log_p.amax(-1))
    return ~(log_p < threshold[:, None]) & ~logits.isneginf()


def sample(
    logits: Tensor,
    mu: Tensor,
    tau: Tensor,
    eta: Tensor,
    surprise: Tensor,
    seed: Tensor,
    position: Tensor,
    sampled: Tensor,
) -> tuple[Tensor, Tensor]:
    """Truncate, draw, and correct the bound by the drawn token's surprise: mu - eta (s - tau).

    Source: Basu et al. 2021, arXiv 2007.14966, algorithm 2; llama.cpp, src/llama-sampling.cpp (mirostat v2), whose s is
    measured after the truncation.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), tempered, no NaN.
        mu: [R] float32, bits: the bound before this token.
        tau: [R] float32, bits: the target.
        eta: [R] float32, how fast.
        surprise: [R], 0 measures s among the kept tokens, 1 with the model's own probability.
        seed: [R] int64, of the noise.
        position: [R] int64.
        sampled: [R] bool, False takes the best token and leaves mu alone.

    Returns:
        The token ids, [R] int64, and the new mu, [R] float32. The same arguments give the same.
    """
    logits = logits.float()
    kept = logits.masked_fill(~keep(logits, mu), -torch.inf)
    ids = noise.draw(kept, seed, position, sampled)
    log_p = torch.where((surprise > 0)[:, None], logits, kept).log_softmax(-1)
    bits = log_p.gather(1, ids[:, None])[:, 0] / -LN2
    corrected = mu - eta.float() * (bits - tau.float())
    # A row without a token has no surprise; mu stays a number.
    return ids, torch.where(sampled & bits.isfinite(), corrected, mu)
