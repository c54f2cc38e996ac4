"""Nudging in Triton: both rows are read once, for whose turn it is; then the one whose turn it is, and written."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import LOWEST, adjacent, argmax, exp_sum, load_tile, row_winner, tiles

from . import reference

BASE, NUDGE = tl.constexpr(reference.BASE), tl.constexpr(reference.NUDGE)
BITS = tl.constexpr(reference.BITS)


@triton.jit
def _load_other(others, others_stride, b_base, o_token, vocabulary):
    """Load the nudger's tile: -inf where it is not finite, or the base's is -inf."""
    i_row = tl.program_id(1).to(tl.int64)
    row = others + i_row * others_stride
    b_other = tl.load(row + o_token, mask=o_token < vocabulary, other=float("-inf")).to(tl.float32)
    there = (tl.abs(b_other) < float("inf")) & (b_base > float("-inf"))
    return tl.where(there, b_other, float("-inf"))


@triton.jit
def _among(token, ends, i_row, count):
    """Say whether `token` is one of the row's `count` end tokens."""
    found = token < 0
    for e in range(count):
        found = found | (tl.load(ends + i_row * count + e) == token)
    return found


@triton.jit
def _read_tiles(logits, stride, vocabulary, others, others_stride, best, token, total):
    """Leave of each tile the best logit and its id, of the base and of the nudger, [2, R, tiles]; and the base's sum.

    The latter is that of exp(x - the tile's best), [R, tiles].
    """
    o_token, b_base = load_tile(logits, stride, vocabulary)
    b_other = _load_other(others, others_stride, b_base, o_token, vocabulary)
    i_part = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    _, b_sum = exp_sum(b_base)
    tl.store(total + i_part, b_sum)
    for i in tl.static_range(2):
        best_here, token_here = argmax(b_base if i == 0 else b_other, o_token)
        at = i * tl.num_programs(1) * tl.num_programs(0) + i_part
        tl.store(best + at, best_here)
        tl.store(token + at, token_here)


@triton.jit(do_not_specialize=["count", "words"])
def _turn_rows(
    best,
    token,
    total,
    parts,
    vocabulary,
    mode,
    threshold,
    ends,
    count,
    starts,
    words,
    new_mode,
    takes,
    part_block: tl.constexpr,
):
    """Say whose turn it is, `new_mode` [R], and whose row is taken, `takes` [R]: the base's also where it is alone."""
    i_row = tl.program_id(0).to(tl.int64)
    i_other = tl.num_programs(0) + i_row
    o_part = tl.arange(0, part_block)
    m_part = o_part < parts
    b_top = tl.maximum(tl.load(best + i_row * parts + o_part, mask=m_part, other=LOWEST), LOWEST)
    b_total = tl.load(total + i_row * parts + o_part, mask=m_part, other=0.0)
    top = tl.max(b_top, axis=0)
    # The bound keeps the product finite; what lies 10,000 nats below the maximum adds nothing.
    p = 1.0 / tl.maximum(tl.sum(b_total * tl.exp(tl.maximum(b_top - top, -10000.0)), axis=0), 1.0e-30)
    sure = (p >= tl.load(threshold + i_row)) & (top > LOWEST)
    first = row_winner(best, token, i_row, parts, vocabulary, part_block)
    following = row_winner(best, token, i_other, parts, vocabulary, part_block)
    there = tl.max(tl.load(best + i_other * parts + o_part, mask=m_part, other=float("-inf")), axis=0) > float("-inf")
    bits = tl.load(starts + i_row * words + following // BITS, mask=following // BITS < words, other=0)
    begins = ((bits >> (following % BITS).to(tl.int64)) & 1) == 1
    returns = begins & ~_among(following, ends, i_row, count) & ((first == following) | sure)
    was = tl.load(mode + i_row) == NUDGE
    base = ~_among(first, ends, i_row, count) & ((was & returns) | (~was & sure))
    tl.store(new_mode + i_row, tl.where(base, BASE, NUDGE).to(tl.int64))
    tl.store(takes + i_row, tl.where(base, 0, tl.where(there, 1, 2)))


@triton.jit(do_not_specialize=["count"])
def _write_tiles(logits, stride, vocabulary, others, others_stride, takes, ends, count, left):
    """Write the tile of the row that is taken to `left` [R, V]."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_base = load_tile(logits, stride, vocabulary)
    taken = tl.load(takes + i_row)
    b_left = b_base
    if taken == 0:
        for e in range(count):
            b_left = tl.where(o_token == tl.load(ends + i_row * count + e), float("-inf"), b_left)
    if taken == 1:
        b_left = _load_other(others, others_stride, b_base, o_token, vocabulary)
    tl.store(left + i_row * vocabulary + o_token, b_left, mask=o_token < vocabulary)


def nudge(
    logits: Tensor, nudger: Tensor, mode: Tensor, threshold: Tensor, ends: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Say whose turn it is, and return that row; arguments and results as in `reference.nudge`."""
    rows, vocabulary = logits.shape
    device = logits.device
    left = torch.empty(rows, vocabulary, dtype=torch.float32, device=device)
    new_mode = torch.empty(rows, dtype=torch.int64, device=device)
    if not rows:
        return left, new_mode
    logits, nudger, ends, starts = adjacent(logits), adjacent(nudger), ends.contiguous(), starts.contiguous()
    parts, count = tiles(vocabulary), ends.shape[1]
    row = logits, logits.stride(0), vocabulary, nudger, nudger.stride(0)
    best = torch.empty(2, rows, parts, dtype=torch.float32, device=device)
    token = torch.empty(2, rows, parts, dtype=torch.int32, device=device)
    total = torch.empty(rows, parts, dtype=torch.float32, device=device)
    takes = torch.empty(rows, dtype=torch.int32, device=device)
    _read_tiles[parts, rows](*row, best, token, total, num_warps=4, enable_fp_fusion=True)
    _turn_rows[(rows,)](
        best,
        token,
        total,
        parts,
        vocabulary,
        mode.contiguous(),
        threshold.float().contiguous(),
        ends,
        count,
        starts,
        starts.shape[1],
        new_mode,
        takes,
        part_block=triton.next_power_of_2(parts),
        num_warps=1,
        enable_fp_fusion=True,
    )
    _write_tiles[parts, rows](*row, takes, ends, count, left, num_warps=4, enable_fp_fusion=True)
    return left, new_mode
