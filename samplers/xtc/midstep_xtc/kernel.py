"""XTC in Triton: a read for the normaliser, one for the least likely top choice, and one that writes the mask."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import adjacent, load_tile, tiles
from midstep.threshold import statistics

SPECIAL = tl.constexpr(16)  # ids that are usually enough: a newline's and the end tokens'


@triton.jit
def _least_tiles(logits, stride, vocabulary, cut, least, token):
    """Leave each tile's lowest logit that is not below `cut`, and its id, in `least` and `token`, both [R, tiles].

    The highest id wins ties; where no logit is, +inf and any id.
    """
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    b_top_choice = tl.where(b_logits >= tl.load(cut + i_row), b_logits, float("inf"))
    lowest = tl.min(b_top_choice, axis=0)
    i_part = i_row * tl.num_programs(0) + tl.program_id(0)
    tl.store(least + i_part, lowest)
    tl.store(token + i_part, tl.max(tl.where(b_top_choice == lowest, o_token, -1), axis=0))


# How many ids are special is no reason to compile anew.
@triton.jit(do_not_specialize=["width"])
def _mask_tiles(
    logits,
    stride,
    vocabulary,
    cut,
    least,
    token,
    special,
    width,
    mask,
    part_block: tl.constexpr,
    special_block: tl.constexpr,
):
    """Fold the row's parts, in every tile anew, and write the tile's part of `mask` [R, V]."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    parts, o_part = tl.num_programs(0), tl.arange(0, part_block)
    m_part = o_part < parts
    b_least = tl.load(least + i_row * parts + o_part, mask=m_part, other=float("inf"))
    b_token = tl.load(token + i_row * parts + o_part, mask=m_part, other=-1)
    stays = tl.max(tl.where(b_least == tl.min(b_least, axis=0), b_token, -1), axis=0)

    o_special = tl.arange(0, special_block)
    b_special = tl.load(special + i_row * width + o_special, mask=o_special < width, other=-1)
    b_at = tl.load(logits + i_row * stride + b_special, mask=b_special >= 0, other=float("-inf")).to(tl.float32)
    row_cut = tl.load(cut + i_row)
    b_protected = (b_at >= row_cut) & (b_special != stays)
    row_cut = tl.where(tl.max(b_protected.to(tl.int32), axis=0) > 0, float("inf"), row_cut)

    b_remove = (b_logits >= row_cut) & (o_token != stays)
    tl.store(mask + i_row * vocabulary + o_token, ~(b_remove | (b_logits == float("-inf"))), mask=o_token < vocabulary)


def keep(logits: Tensor, threshold: Tensor, applies: Tensor, special: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.keep`."""
    rows, vocabulary = logits.shape
    mask = torch.empty(rows, vocabulary, dtype=torch.bool, device=logits.device)
    if not rows:
        return mask
    logits, parts, width = adjacent(logits), tiles(vocabulary), special.shape[1]
    # Above every logit where the coin said no.
    cut = torch.where(applies, statistics(logits).lse + threshold.float().log(), torch.inf)
    least = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    token = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    row = logits, logits.stride(0), vocabulary, cut, least, token
    _least_tiles[parts, rows](*row, num_warps=4, enable_fp_fusion=True)
    _mask_tiles[parts, rows](
        *row,
        special.contiguous(),
        width,
        mask,
        part_block=triton.next_power_of_2(parts),
        special_block=max(triton.next_power_of_2(width), SPECIAL.value),
        num_warps=4,
        enable_fp_fusion=True,
    )
    return mask
