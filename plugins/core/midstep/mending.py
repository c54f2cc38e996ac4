"""What methods made of their rows, checked and mended in Triton; `midstep.guards` has the definitions."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import guards
from .device import adjacent, load_tile, tiles

NAN, EMPTY = tl.constexpr(guards.NAN), tl.constexpr(guards.EMPTY)


@triton.jit
def _mend_tiles(logits, stride, vocabulary, before, before_stride, mended, marks):
    """Mask what was masked, and leave marks of a tile: 1 a number that is none, 2 a token left, 4 one before."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    _, b_before = load_tile(before, before_stride, vocabulary)
    b_logits = tl.where(b_before == float("-inf"), float("-inf"), b_logits)
    b_marks = tl.where((b_logits != b_logits) | (b_logits == float("inf")), 1, 0)
    b_marks |= tl.where(b_logits == float("-inf"), 0, 2)
    b_marks |= tl.where(b_before == float("-inf"), 0, 4)
    found = tl.max(b_marks & 1, axis=0) | tl.max(b_marks & 2, axis=0) | tl.max(b_marks & 4, axis=0)
    tl.store(marks + i_row * tl.num_programs(0) + tl.program_id(0), found)
    tl.store(mended + i_row * vocabulary + o_token, b_logits, mask=o_token < vocabulary)


@triton.jit
def _restore_tiles(logits, stride, vocabulary, mended, marks, fault, part_block: tl.constexpr):
    """Say a row's fault, and put the tile back as it was before if there is one; `logits` are those before."""
    i_row = tl.program_id(1).to(tl.int64)
    parts = tl.num_programs(0)
    o_part = tl.arange(0, part_block)
    b_marks = tl.load(marks + i_row * parts + o_part, mask=o_part < parts, other=0)
    wrong, left, was = tl.max(b_marks & 1, axis=0), tl.max(b_marks & 2, axis=0), tl.max(b_marks & 4, axis=0)
    found = tl.where(wrong > 0, NAN, tl.where((left == 0) & (was > 0), EMPTY, 0))
    if tl.program_id(0) == 0:
        tl.store(fault + i_row, found.to(tl.int64))
    if found > 0:
        o_token, b_before = load_tile(logits, stride, vocabulary)
        tl.store(mended + i_row * vocabulary + o_token, b_before, mask=o_token < vocabulary)


def mended(logits: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Check and mend; arguments and results as in `midstep.guards.mended`."""
    rows, vocabulary = logits.shape
    found = torch.empty(rows, vocabulary, dtype=torch.float32, device=logits.device)
    fault = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if not rows:
        return found, fault
    logits, before, parts = adjacent(logits), adjacent(before), tiles(vocabulary)
    marks = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    _mend_tiles[parts, rows](logits, logits.stride(0), vocabulary, before, before.stride(0), found, marks, num_warps=4)
    block = triton.next_power_of_2(parts)
    _restore_tiles[parts, rows](
        before, before.stride(0), vocabulary, found, marks, fault, part_block=block, num_warps=4
    )
    return found, fault


@triton.jit
def _pick_tiles(logits, stride, vocabulary, keep, keep_stride, left, marks):
    """Leave a tile's kept tokens, and its marks: 1 one is kept, 2 one was there."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    b_keep = tl.load(keep + i_row * keep_stride + o_token, mask=o_token < vocabulary, other=0) != 0
    b_finite = b_logits != float("-inf")
    b_kept = b_keep & b_finite
    found = tl.max(b_kept.to(tl.int32), axis=0) | (tl.max(b_finite.to(tl.int32), axis=0) * 2)
    tl.store(marks + i_row * tl.num_programs(0) + tl.program_id(0), found)
    tl.store(left + i_row * vocabulary + o_token, tl.where(b_kept, b_logits, float("-inf")), mask=o_token < vocabulary)


@triton.jit(do_not_specialize_on_alignment=["token", "empty", "taken"])
def _picked_tiles(
    logits, stride, vocabulary, keep, keep_stride, left, marks, token, empty, taken, part_block: tl.constexpr
):
    """Say whether a row would be empty, put the tile back if so, and say whether the row's token was taken."""
    i_row = tl.program_id(1).to(tl.int64)
    parts = tl.num_programs(0)
    o_part = tl.arange(0, part_block)
    b_marks = tl.load(marks + i_row * parts + o_part, mask=o_part < parts, other=0)
    none = (tl.max(b_marks & 1, axis=0) == 0) & (tl.max(b_marks & 2, axis=0) > 0)
    if tl.program_id(0) == 0:
        chosen = tl.load(token + i_row)
        there = tl.load(logits + i_row * stride + chosen).to(tl.float32) != float("-inf")
        stays = tl.load(keep + i_row * keep_stride + chosen) != 0
        tl.store(empty + i_row, none)
        tl.store(taken + i_row, there & (stays == 0) & (none == 0))
    if none:
        o_token, b_logits = load_tile(logits, stride, vocabulary)
        tl.store(left + i_row * vocabulary + o_token, b_logits, mask=o_token < vocabulary)


def kept(logits: Tensor, keep: Tensor, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keep what a rule keeps; arguments and results as in `midstep.guards.kept`."""
    rows, vocabulary = logits.shape
    left = torch.empty(rows, vocabulary, dtype=torch.float32, device=logits.device)
    empty, taken = (torch.empty(rows, dtype=torch.bool, device=logits.device) for _ in range(2))
    if not rows:
        return left, empty, taken
    logits, keep, parts = adjacent(logits), adjacent(keep), tiles(vocabulary)
    marks = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    both = logits, logits.stride(0), vocabulary, keep, keep.stride(0), left, marks
    _pick_tiles[parts, rows](*both, num_warps=4)
    block = triton.next_power_of_2(parts)
    _picked_tiles[parts, rows](*both, token.contiguous(), empty, taken, part_block=block, num_warps=4)
    return left, empty, taken
