"""Quadratic sampling in Triton: a pass for the maximum, and one that writes the new logits."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import LOWEST, adjacent, load_tile, tiles


@triton.jit
def _top_tiles(logits, stride, vocabulary, top):
    """Leave each tile's maximum, at least LOWEST, in `top` [R, tiles]."""
    i_row = tl.program_id(1).to(tl.int64)
    _, b_logits = load_tile(logits, stride, vocabulary)
    tl.store(top + i_row * tl.num_programs(0) + tl.program_id(0), tl.maximum(tl.max(b_logits, axis=0), LOWEST))


@triton.jit
def _bend_tiles(logits, stride, vocabulary, top, factor, curve, bent, part_block: tl.constexpr):
    """Fold the row's maximum, in every tile anew, and write the tile's part of `bent` [R, V]."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    parts, o_part = tl.num_programs(0), tl.arange(0, part_block)
    row_top = tl.max(tl.load(top + i_row * parts + o_part, mask=o_part < parts, other=LOWEST), axis=0)
    row_factor, row_curve = tl.load(factor + i_row), tl.load(curve + i_row)
    b_below = tl.where(b_logits == float("-inf"), 0.0, b_logits - row_top)
    b_slope = (3.0 - row_curve) * 0.5 - (row_curve - 1.0) * 0.5 * b_below
    b_bent = row_top - row_factor * (b_below * b_below) * b_slope
    b_bent = tl.where(b_logits == float("-inf"), b_logits, b_bent)
    b_bent = tl.where(row_factor == 0.0, b_logits, b_bent)
    tl.store(bent + i_row * vocabulary + o_token, b_bent, mask=o_token < vocabulary)


def bend(logits: Tensor, factor: Tensor, curve: Tensor) -> Tensor:
    """Replace each logit's distance to the best; arguments and result as in `reference.bend`."""
    rows, vocabulary = logits.shape
    bent = torch.empty(rows, vocabulary, dtype=torch.float32, device=logits.device)
    if not rows:
        return bent
    logits, parts = adjacent(logits), tiles(vocabulary)
    top = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    row = logits, logits.stride(0), vocabulary, top
    _top_tiles[parts, rows](*row, num_warps=4, enable_fp_fusion=True)
    columns = factor.float().contiguous(), curve.float().contiguous()
    part_block = triton.next_power_of_2(parts)
    _bend_tiles[parts, rows](*row, *columns, bent, part_block=part_block, num_warps=4, enable_fp_fusion=True)
    return bent
