"""Contrasts in Triton: a row and its companions are read once, and moved, or moved and drawn from.

`midstep.contrast` is the definition. A companion whose weight is 0 is not read. A product and its sum are one rounding
here, so that what is drawn at once is what would be drawn from what is written.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import contrast
from .device import TILE, adjacent, argmax, row_winner, tile_noise, tiles
from .visits import temper

MOST = tl.constexpr(contrast.MOST)


class Drawn(NamedTuple):
    """What became of each row, all [R].

    Args:
        token: int64, drawn from the moved row; `plain`: from the row as it was, with the same noise.
        empty: bool, the floor would have left nothing, and the row was drawn from as it was.
    """

    token: Tensor
    plain: Tensor
    empty: Tensor


@triton.jit
def moved_tile(logits, stride, own, others, others_stride, index, weights, count, floor, scale, vocabulary):
    """Load this program's tile and move it, for a grid of (tiles, rows).

    Args:
        logits: pointer to [N, V], columns adjacent; `own`: to [R] int64, which of its rows each row is.
        others: pointer to [M, V], columns adjacent; `index`: to [R, count] int64, which of its rows each companion is,
            negative for one that is not there and is taken to be the row itself.
        weights: pointer to [R, count] float32.
        floor: pointer to [R] float32, and `scale`.

    Returns:
        The tokens' ids, [TILE] int32, their logits and their moved logits, [TILE] float32; -inf from V on.
    """
    i_row = tl.program_id(1).to(tl.int64)
    o_token = tl.program_id(0) * TILE + tl.arange(0, TILE)
    m_token = o_token < vocabulary
    row = logits + tl.load(own + i_row) * stride
    b_own = tl.load(row + o_token, mask=m_token, other=float("-inf")).to(tl.float32)
    b_there = tl.abs(b_own) < float("inf")
    b_finite = tl.where(b_there, b_own, 0.0)
    b_moved, moves = b_own, 0
    for k in range(count):
        weight, i_other = tl.load(weights + i_row * count + k), tl.load(index + i_row * count + k)
        if weight != 0.0:
            moves = 1
            if i_other >= 0:
                other = others + i_other * others_stride
                b_other = tl.load(other + o_token, mask=m_token, other=float("-inf")).to(tl.float32)
                b_apart = b_finite - tl.where(tl.abs(b_other) < float("inf"), b_other, b_finite)
                b_step = tl.fma(b_apart, weight, b_moved)
                b_moved = tl.where(b_there, tl.minimum(tl.maximum(b_step, -MOST), MOST), b_moved)
    if moves > 0:
        b_scaled = tl.fma(b_finite, tl.load(scale + i_row) - 1.0, b_moved)
        b_moved = tl.where(b_there, tl.minimum(tl.maximum(b_scaled, -MOST), MOST), b_moved)
        b_moved = tl.where(b_own < tl.load(floor + i_row), float("-inf"), b_moved)
    return o_token, b_own, b_moved


@triton.jit(do_not_specialize=["count"])
def _move_tiles(logits, stride, vocabulary, own, others, others_stride, index, weights, count, floor, scale, moved):
    """Write the tile's part of `moved` [R, V] float32."""
    o_token, _, b_moved = moved_tile(
        logits, stride, own, others, others_stride, index, weights, count, floor, scale, vocabulary
    )
    i_row = tl.program_id(1).to(tl.int64)
    tl.store(moved + i_row * vocabulary + o_token, b_moved, mask=o_token < vocabulary)


@triton.jit(do_not_specialize=["count"])
def _draw_tiles(
    logits,
    stride,
    vocabulary,
    own,
    others,
    others_stride,
    index,
    weights,
    count,
    floor,
    scale,
    temperature,
    seed,
    position,
    sampled,
    best,
    token,
):
    """Leave the tile's best noised logit and its id, moved and as it was: `best` and `token`, both [2, R, tiles]."""
    o_token, b_own, b_moved = moved_tile(
        logits, stride, own, others, others_stride, index, weights, count, floor, scale, vocabulary
    )
    i_row = tl.program_id(1).to(tl.int64)
    warmth = tl.load(temperature + i_row)
    b_own, b_moved = temper(b_own, warmth), temper(b_moved, warmth)
    if tl.load(sampled + i_row):
        b_noise = tile_noise(tl.load(seed + i_row), tl.load(position + i_row), 0)
        b_own += b_noise
        b_moved += b_noise
    i_part = i_row * tl.num_programs(0) + tl.program_id(0)
    for i in tl.static_range(2):
        best_here, token_here = argmax(b_moved if i == 0 else b_own, o_token)
        at = i * tl.num_programs(1) * tl.num_programs(0) + i_part
        tl.store(best + at, best_here)
        tl.store(token + at, token_here)


@triton.jit
def _draw_rows(best, token, parts, vocabulary, ids, plain, empty, part_block: tl.constexpr):
    """Fold the tiles of each row into `ids`, `plain` and `empty`, all [R]."""
    i_row = tl.program_id(0).to(tl.int64)
    i_plain = tl.num_programs(0) + i_row
    o_part = tl.arange(0, part_block)
    m_part = o_part < parts
    top = tl.max(tl.load(best + i_row * parts + o_part, mask=m_part, other=float("-inf")), axis=0)
    plain_top = tl.max(tl.load(best + i_plain * parts + o_part, mask=m_part, other=float("-inf")), axis=0)
    leaves_none = (top == float("-inf")) & (plain_top > float("-inf"))
    before = row_winner(best, token, i_plain, parts, vocabulary, part_block).to(tl.int64)
    after = row_winner(best, token, i_row, parts, vocabulary, part_block).to(tl.int64)
    tl.store(ids + i_row, tl.where(leaves_none, before, after))
    tl.store(plain + i_row, before)
    tl.store(empty + i_row, leaves_none)


def contrasted(
    logits: Tensor,
    own: Tensor,
    others: Tensor,
    index: Tensor,
    weights: Tensor,
    floor: Tensor,
    scale: Tensor | None = None,
) -> Tensor:
    """Move each row as `midstep.contrast.contrasted` does.

    Args:
        logits: [N, V] float32 or bfloat16.
        own: [R] int64, the rows of `logits` that are moved.
        others: [M, V] float32 or bfloat16, where the companions' rows are.
        index: [R, K] int64, which of them each companion is; negative for one that is not there.
        weights: [R, K] float32, finite.
        floor: [R] float32.
        scale: [R] float32, finite; None is 1 in all rows.

    Returns:
        [R, V] float32.
    """
    rows, vocabulary = len(own), logits.shape[1]
    moved = torch.empty(rows, vocabulary, dtype=torch.float32, device=logits.device)
    if rows:
        _move_tiles[tiles(vocabulary), rows](
            *_arguments(logits, own, others, index, weights, floor, scale), moved, num_warps=4, enable_fp_fusion=True
        )
    return moved


def draw(
    logits: Tensor,
    own: Tensor,
    others: Tensor,
    index: Tensor,
    weights: Tensor,
    floor: Tensor,
    temperature: Tensor,
    seed: Tensor,
    position: Tensor,
    sampled: Tensor,
    scale: Tensor | None = None,
) -> Drawn:
    """Move each row, and draw from it at its temperature; nothing but the tokens is written.

    Args:
        logits: and own, others, index, weights, floor, scale as in `contrasted`; no NaN.
        temperature: [R] float32; 0 is as 1, as in `midstep.sampling.temper`.
        seed: [R] int64, and position, sampled as in `midstep.noise.draw`.
    """
    rows, vocabulary = len(own), logits.shape[1]
    ids, plain = (torch.empty(rows, dtype=torch.int64, device=logits.device) for _ in range(2))
    empty = torch.empty(rows, dtype=torch.bool, device=logits.device)
    if not rows:
        return Drawn(ids, plain, empty)
    parts = tiles(vocabulary)
    best = torch.empty(2, rows, parts, dtype=torch.float32, device=logits.device)
    token = torch.empty(2, rows, parts, dtype=torch.int32, device=logits.device)
    _draw_tiles[parts, rows](
        *_arguments(logits, own, others, index, weights, floor, scale),
        temperature.contiguous(),
        seed.contiguous(),
        position.contiguous(),
        sampled.contiguous(),
        best,
        token,
        num_warps=4,
        enable_fp_fusion=True,
    )
    part_block = triton.next_power_of_2(parts)
    _draw_rows[(rows,)](
        best, token, parts, vocabulary, ids, plain, empty, part_block=part_block, num_warps=1, enable_fp_fusion=True
    )
    return Drawn(ids, plain, empty)


def _arguments(
    logits: Tensor,
    own: Tensor,
    others: Tensor,
    index: Tensor,
    weights: Tensor,
    floor: Tensor,
    scale: Tensor | None,
) -> tuple[Tensor | int, ...]:
    logits, others = adjacent(logits), adjacent(others)
    row = logits, logits.stride(0), logits.shape[1], own.contiguous()
    beside = others, others.stride(0), index.contiguous(), weights.float().contiguous(), index.shape[1]
    scale = torch.ones_like(floor) if scale is None else scale
    return *row, *beside, floor.float().contiguous(), scale.float().contiguous()
