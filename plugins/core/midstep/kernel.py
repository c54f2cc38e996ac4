"""The draw in Triton; `midstep.noise.draw` is its definition."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import adjacent, argmax, load_tile, row_winner, tile_noise, tiles


@triton.jit
def _draw_tiles(logits, stride, vocabulary, seed, position, sampled, best, token):
    """Leave each tile's best noised logit and its id in `best` and `token`, both [R, tiles]."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    if tl.load(sampled + i_row):
        b_logits += tile_noise(tl.load(seed + i_row), tl.load(position + i_row), 0)
    b_best, b_token = argmax(b_logits, o_token)
    i_part = i_row * tl.num_programs(0) + tl.program_id(0)
    tl.store(best + i_part, b_best)
    tl.store(token + i_part, b_token)


@triton.jit
def _draw_rows(best, token, parts, vocabulary, ids, part_block: tl.constexpr):
    """Fold the tiles of each row into `ids` [R]."""
    i_row = tl.program_id(0).to(tl.int64)
    tl.store(ids + i_row, row_winner(best, token, i_row, parts, vocabulary, part_block).to(tl.int64))


def draw(logits: Tensor, seed: Tensor, position: Tensor, sampled: Tensor) -> Tensor:
    """Draw a token for each row; arguments and result as in `midstep.noise.draw`."""
    rows, vocabulary = logits.shape
    ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if not rows:
        return ids
    logits, parts = adjacent(logits), tiles(vocabulary)
    best = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    token = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    columns = seed.contiguous(), position.contiguous(), sampled.contiguous()
    _draw_tiles[parts, rows](
        logits, logits.stride(0), vocabulary, *columns, best, token, num_warps=4, enable_fp_fusion=True
    )
    part_block = triton.next_power_of_2(parts)
    _draw_rows[(rows,)](best, token, parts, vocabulary, ids, part_block=part_block, num_warps=1, enable_fp_fusion=True)
    return ids
