"""Min-p in Triton: one read for each row's maximum, one for the mask."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import adjacent, load_tile, tiles


@triton.jit
def _max_tiles(logits, stride, vocabulary, top):
    """Leave each tile's maximum in `top` [R, tiles]."""
    i_row = tl.program_id(1).to(tl.int64)
    _, b_logits = load_tile(logits, stride, vocabulary)
    tl.store(top + i_row * tl.num_programs(0) + tl.program_id(0), tl.max(b_logits, axis=0))


@triton.jit
def _keep_tiles(logits, stride, vocabulary, top, log_p, mask, part_block: tl.constexpr):
    """Fold the row's maxima, in every tile anew, and write the tile's part of `mask` [R, V]."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    parts = tl.num_programs(0)
    o_part = tl.arange(0, part_block)
    b_top = tl.load(top + i_row * parts + o_part, mask=o_part < parts, other=float("-inf"))
    # The same sum as the reference's, so the two masks are equal to the bit.
    threshold = tl.max(b_top, axis=0) + tl.load(log_p + i_row)
    b_keep = (b_logits < threshold) | (b_logits == float("-inf"))
    tl.store(mask + i_row * vocabulary + o_token, ~b_keep, mask=o_token < vocabulary)


def keep(logits: Tensor, p: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.keep`, equal to it in every bit."""
    rows, vocabulary = logits.shape
    mask = torch.empty(rows, vocabulary, dtype=torch.bool, device=logits.device)
    if not rows:
        return mask
    logits, parts = adjacent(logits), tiles(vocabulary)
    top = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    row = logits, logits.stride(0), vocabulary
    _max_tiles[parts, rows](*row, top, num_warps=4, enable_fp_fusion=True)
    _keep_tiles[parts, rows](
        *row, top, p.log(), mask, part_block=triton.next_power_of_2(parts), num_warps=4, enable_fp_fusion=True
    )
    return mask
