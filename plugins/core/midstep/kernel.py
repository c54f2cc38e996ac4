"""The draw and the coin in Triton; `midstep.noise` has their definitions."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import adjacent, argmax, load_tile, noise_bits, row_winner, tile_noise, tiles, uniform_number


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


@triton.jit(do_not_specialize=["stream"], do_not_specialize_on_alignment=["seed", "position", "numbers"])
def _uniform_rows(seed, position, numbers, stream):
    """Leave a row's uniform number."""
    i_row = tl.program_id(0).to(tl.int64)
    o_call = tl.arange(0, 1)
    b_bits, _, _, _ = noise_bits(tl.load(seed + i_row), tl.load(position + i_row), stream, o_call)
    tl.store(numbers + i_row + o_call, uniform_number(b_bits))


def uniform(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    """Give each row one uniform number; arguments and result as in `midstep.noise.uniform`."""
    numbers = torch.empty(len(seed), dtype=torch.float32, device=seed.device)
    if len(seed):
        _uniform_rows[(len(seed),)](seed.contiguous(), position.contiguous(), numbers, stream, num_warps=1)
    return numbers
