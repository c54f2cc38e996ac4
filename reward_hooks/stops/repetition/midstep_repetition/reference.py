"""The repeated stretch at a text's end, in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor

LONGEST_PERIOD = 128
MOST = 4096  # where a stretch stops counting; no request can need more
BLOCK = 32  # how many tokens are compared at a time


def repeated(
    ids: Tensor, lengths: Tensor, generated: Tensor, times: Tensor, period: Tensor, least: Tensor
) -> tuple[Tensor, Tensor]:
    """Measure the repeated stretch that a text ends with, and say how long it had to be to count as a loop.

    A stretch of period q is the longest end of the text in which each token equals the one q places before it; together
    with the first block, which repeats nothing, and 0 where not even the last token repeats. It has to have `times`
    blocks and `least` tokens: max(times * q, least). Of all periods the one counts that lacks the fewest tokens, and
    among equals the shortest. The comparison is of tokens, so it is exact. After TrimR's detection of loops: Lin et al.
    2025, arXiv 2505.17155, who use a rolling hash.

    Args:
        ids: [R, L] int64, prompt and generated ids; what lies beyond a row's length is not read.
        lengths: [R] int64.
        generated: [R] int64, how many of them were generated; the prompt is not part of any stretch.
        times: [R] int64, >= 2.
        period: [R] int64, 1..LONGEST_PERIOD, the longest looked for.
        least: [R] int64, 1..MOST.

    Returns:
        The stretch's length and the length that it needed, both [R] int64; they make a loop where the first is not
        less. The length is at most MOST + its period.
    """
    last = lengths - 1
    q = torch.arange(1, LONGEST_PERIOD + 1, device=ids.device)
    alive = q <= period[:, None]
    run = torch.zeros_like(alive, dtype=torch.int64)  # [R, periods], tokens that equal the one before by the period
    for start in range(0, MOST, BLOCK):
        back = torch.arange(start, start + BLOCK, device=ids.device)
        token, before = _at(ids, last[:, None] - back), _at(ids, last[:, None, None] - q[:, None] - back)
        same = (token[:, None] == before) & (back + q[:, None] < generated[:, None, None]) & alive[..., None]
        ahead = same.long().cumprod(-1).sum(-1)
        run, alive = run + ahead, ahead == BLOCK
        if ids.device.type == "cpu" and not alive.any():
            break
    stretch = torch.where(run > 0, run + q, 0)
    needed = torch.maximum(times[:, None] * q, least[:, None])
    lacking = torch.where(q <= period[:, None], needed - stretch, torch.iinfo(torch.int64).max)
    best = lacking.argmin(-1, keepdim=True)
    return stretch.gather(1, best)[:, 0], needed.gather(1, best)[:, 0]


def _at(ids: Tensor, index: Tensor) -> Tensor:
    """Return the tokens at `index` [R, ...]; some token where it is outside."""
    return ids.gather(1, index.clamp(0, ids.shape[1] - 1).flatten(1)).view_as(index)
