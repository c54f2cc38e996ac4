"""DRY in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor

MOST = 256  # the longest match that can be asked for
HEAVIEST = 1e30  # no penalty is larger: a token never falls to -inf


def penalise(
    logits: Tensor,
    ids: Tensor,
    lengths: Tensor,
    breakers: Tensor,
    multiplier: Tensor,
    base: Tensor,
    allowed_length: Tensor,
    span: Tensor,
    max_match: Tensor,
) -> Tensor:
    """Lower the logits of the tokens that would go on repeating what the context already holds.

    For each earlier position i, n is how many tokens up to i equal as many up to the end, without a breaker among them.
    The token after i loses multiplier * base^(n - allowed_length) for the largest n that it has, if that is at least
    `allowed_length`. A breaker itself loses nothing. Source: p-e-w 2024, oobabooga/text-generation-webui pull 5677.

    Args:
        logits: [R, V] float32 (or bfloat16, read as float32), no NaN.
        ids: [R, L] int64, prompt and generated ids; what lies beyond a row's length is not read.
        lengths: [R] int64.
        breakers: [R, B] int64, token ids; -1 where a row has fewer.
        multiplier: [R] float32, >= 0.
        base: [R] float32, >= 1.
        allowed_length: [R] int64, >= 1.
        span: [R] int64, how many of the last tokens are looked at; 0 for all.
        max_match: [R] int64, 1..MOST, where n stops counting.

    Returns:
        [R, V] float32.
    """
    logits = logits.float()
    matched = _matched(ids, lengths, breakers, span, max_match)
    exponent = torch.arange(MOST + 1, device=ids.device) - allowed_length[:, None]
    # In float64, rounded once: so the kernel, which multiplies, comes to the same float32.
    power = (base.double()[:, None] ** exponent.clamp_min(0)).clamp_max(HEAVIEST)
    weight = (multiplier.double()[:, None] * power).clamp_max(HEAVIEST).float().masked_fill(exponent < 0, 0.0)
    follower = ids.roll(-1, 1)
    penalty = weight.gather(1, matched).masked_fill(
        (matched == 0) | (follower < 0) | (follower >= logits.shape[1]), 0.0
    )
    for breaker in breakers.T:
        penalty = penalty.masked_fill(follower == breaker[:, None], 0.0)
    follower = follower.clamp(0, logits.shape[1] - 1)
    return logits - torch.zeros_like(logits).scatter_reduce(1, follower, penalty, "amax")


def _matched(ids: Tensor, lengths: Tensor, breakers: Tensor, span: Tensor, max_match: Tensor) -> Tensor:
    """Return n for each position, [R, L] int64; 0 where the match is empty, and at the last position."""
    last = lengths[:, None] - 1
    start = torch.where(span > 0, lengths - span, 0).clamp_min(0)[:, None]
    at = torch.arange(ids.shape[1], device=ids.device)
    alive = (at >= start) & (at < last)
    matched = torch.zeros_like(ids)
    for n in range(MOST):
        token = ids.gather(1, (last - n).clamp_min(0))
        goes_on = (n < max_match[:, None]) & ~(token == breakers).any(-1, keepdim=True)
        alive = alive & goes_on & (at - n >= start) & (ids.roll(n, 1) == token)
        if ids.device.type == "cpu" and not alive.any():
            break
        matched += alive
    return matched
