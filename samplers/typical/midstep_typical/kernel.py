"""Locally typical sampling in Triton: no sort, but a search for the last distance that stays.

A distance |-log p - H| is a float32 of at least 0, and its bits, read as a whole number, sort as it does. The answer is
the smallest of these 2^31 numbers up to which the tokens have enough probability. It is found four bits at a time: a
turn reads the row and weighs what lies below fifteen numbers that split the bracket, and the next one takes the part in
which enough is reached. Every sum is over all tokens below a number, in an order that depends on the vocabulary alone,
and with more addends >= 0 a rounded sum of one order never shrinks: so the search is exact, for the sums as rounded.

Each turn folds what the one before it weighed, in every tile anew: eleven launches with the statistics and the mask,
ten reads of the row, and nothing waits for the host.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep import threshold
from midstep.device import LOG2E, adjacent, load_tile, tiles

BITS = tl.constexpr(4)  # of the answer, in a turn
SPLITS = tl.constexpr(16)  # parts of the bracket
FIRST = tl.constexpr(28)  # the first turn's parts are 2^28 wide
MOST = tl.constexpr(0x7FFFFFFF)


@triton.jit
def distance_key(b_logits, normaliser, entropy):
    """Turn the distances |-log p - H| into int32 that sort as they do.

    No two operations here can be fused into one, so a token's key is the same in every kernel.
    """
    return tl.abs(b_logits - (normaliser - entropy)).to(tl.int32, bitcast=True)


@triton.jit
def narrow(low, shift, weighed, i_row, parts, mass, min_keep, part_block: tl.constexpr):
    """Return the start of the part, of those 2^shift wide from `low` on, in which enough is reached; else the last."""
    o_split = tl.arange(0, SPLITS)
    o_part = tl.arange(0, part_block)
    at = weighed + (i_row * parts + o_part[:, None]) * 2 * SPLITS + o_split[None, :]
    m_at = (o_part < parts)[:, None] & (o_split < SPLITS - 1)[None, :]
    m_short = ~(tl.sum(tl.load(at, mask=m_at, other=0.0), axis=0) >= mass)
    if min_keep > 1:
        b_count = tl.sum(tl.load(at + SPLITS, mask=m_at, other=0.0), axis=0)
        m_short = m_short | (b_count < min_keep)
    steps = tl.sum((m_short & (o_split < SPLITS - 1)).to(tl.int32), axis=0)
    # Where all tokens together fall short of the mass, by a rounding, the answer is the largest key.
    return low + (tl.minimum(steps, (MOST - low) >> shift) << shift)


@triton.jit(do_not_specialize=["shift"])
def _weigh_tiles(
    logits,
    stride,
    vocabulary,
    lse,
    entropy,
    mass,
    min_keep,
    low,
    weighed,
    shift,
    new_low,
    new_weighed,
    part_block: tl.constexpr,
):
    """Narrow each row's bracket, and leave what each tile holds below each split.

    Args:
        low: [R] int32, the bracket's start before the last turn; not read in the first.
        weighed: [R, tiles, 2, SPLITS], what the last turn weighed: probabilities, and, if min_keep > 1, numbers.
        shift: the parts are 2^shift wide now.
    """
    i_row = tl.program_id(1).to(tl.int64)
    parts = tl.num_programs(0)
    least = tl.load(min_keep + i_row).to(tl.float32)
    start = tl.full((), 0, tl.int32)
    if shift < FIRST:
        start = narrow(
            tl.load(low + i_row), shift + BITS, weighed, i_row, parts, tl.load(mass + i_row), least, part_block
        )
    if tl.program_id(0) == 0:
        tl.store(new_low + i_row, start)
    _, b_logits = load_tile(logits, stride, vocabulary)
    normaliser = tl.load(lse + i_row)
    b_split = (distance_key(b_logits, normaliser, tl.load(entropy + i_row)) - start) >> shift
    b_p = tl.exp2((b_logits - normaliser) * LOG2E)
    at = new_weighed + (i_row * parts + tl.program_id(0)) * 2 * SPLITS
    for i in tl.static_range(SPLITS - 1):
        tl.store(at + i, tl.sum(tl.where(b_split <= i, b_p, 0.0), axis=0))
    if least > 1:
        m_finite = b_logits > float("-inf")
        for i in tl.static_range(SPLITS - 1):
            tl.store(at + SPLITS + i, tl.sum((m_finite & (b_split <= i)).to(tl.float32), axis=0))


@triton.jit
def _keep_tiles(logits, stride, vocabulary, lse, entropy, mass, min_keep, low, weighed, mask, part_block: tl.constexpr):
    """Take the last turn's part, one key wide, and write the tile's part of `mask` [R, V]."""
    i_row = tl.program_id(1).to(tl.int64)
    least = tl.load(min_keep + i_row).to(tl.float32)
    last = narrow(tl.load(low + i_row), 0, weighed, i_row, tl.num_programs(0), tl.load(mass + i_row), least, part_block)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    b_key = distance_key(b_logits, tl.load(lse + i_row), tl.load(entropy + i_row))
    b_keep = (b_key <= last) & (b_logits > float("-inf"))
    tl.store(mask + i_row * vocabulary + o_token, b_keep, mask=o_token < vocabulary)


def keep(logits: Tensor, mass: Tensor, min_keep: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.keep`, up to a sum's rounding at the last one."""
    rows, vocabulary = logits.shape
    mask = torch.empty(rows, vocabulary, dtype=torch.bool, device=logits.device)
    if not rows:
        return mask
    logits, parts = adjacent(logits), tiles(vocabulary)
    found = threshold.statistics(logits)
    row = logits, logits.stride(0), vocabulary, found.lse, found.entropy, mass.contiguous(), min_keep.contiguous()
    # A turn reads one of each pair and writes the other.
    low, new_low = torch.empty(2, rows, dtype=torch.int32, device=logits.device)
    weighed, new_weighed = torch.empty(2, rows, parts, 2, SPLITS.value, dtype=torch.float32, device=logits.device)
    options = {"part_block": triton.next_power_of_2(parts), "num_warps": 4, "enable_fp_fusion": True}
    for shift in range(FIRST.value, -1, -BITS.value):
        _weigh_tiles[parts, rows](*row, low, weighed, shift, new_low, new_weighed, **options)
        low, new_low, weighed, new_weighed = new_low, low, new_weighed, weighed
    _keep_tiles[parts, rows](*row, low, weighed, mask, **options)
    return mask
