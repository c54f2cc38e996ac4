"""What a logits processor made of its rows, checked and mended in Triton; `midstep.guards.mended` is the definition."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import adjacent, load_tile, tiles
from .guards import FAULTS

NAN, EMPTY = tl.constexpr(1 + FAULTS.index("nan")), tl.constexpr(1 + FAULTS.index("empty"))


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
