"""DeepConf's two measures in Triton: one read of the logits, no sort of the vocabulary."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import GROUP, LOWEST, TILE, adjacent, exp_sum, load_tile, log_sum_exp, pack, packed_index, tiles

from . import reference

MOST = tl.constexpr(reference.MOST)
RING_BLOCK = tl.constexpr(2048)


@triton.jit
def _confidence_tiles(logits, stride, vocabulary, top, total, group_top):
    """Leave each tile's maximum and sum of exponentials, both [R, tiles], and each group's maximum, [R, groups]."""
    i_row = tl.program_id(1).to(tl.int64)
    _, b_logits = load_tile(logits, stride, vocabulary)
    b_group_top = tl.max(tl.reshape(b_logits, (TILE // GROUP, GROUP)), axis=1)
    b_top, b_total = exp_sum(b_logits)
    i_part = i_row * tl.num_programs(0) + tl.program_id(0)
    tl.store(top + i_part, b_top)
    tl.store(total + i_part, b_total)
    tl.store(group_top + i_part * (TILE // GROUP) + tl.arange(0, TILE // GROUP), b_group_top)


@triton.jit
def _confidence_rows(
    logits,
    stride,
    vocabulary,
    top,
    total,
    group_top,
    parts,
    k,
    confidence,
    part_block: tl.constexpr,
    group_block: tl.constexpr,
):
    """Fold a row's tiles into `confidence` [R].

    The MOST best tokens lie in the MOST groups with the largest maxima (ties by the lower group): a token outside them
    has MOST tokens that are at least its equal. So two small selections replace a sort of the row.
    """
    i_row = tl.program_id(0).to(tl.int64)
    o_part = tl.arange(0, part_block)
    m_part = o_part < parts
    b_top = tl.load(top + i_row * parts + o_part, mask=m_part, other=LOWEST)
    b_total = tl.load(total + i_row * parts + o_part, mask=m_part, other=0.0)
    normaliser = log_sum_exp(b_top, b_total)

    groups = parts * (TILE // GROUP)
    o_group = tl.arange(0, group_block)
    b_group_top = tl.load(group_top + i_row * groups + o_group, mask=o_group < groups, other=float("-inf"))
    b_group = packed_index(tl.topk(pack(b_group_top, o_group), MOST))
    o_token = b_group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    b_logits = tl.load(logits + i_row * stride + o_token, mask=o_token < vocabulary, other=float("-inf")).to(tl.float32)
    b_best = tl.topk(tl.reshape(b_logits, (MOST * GROUP,)), MOST)

    m_best = (tl.arange(0, MOST) < tl.load(k + i_row)) & (b_best != float("-inf"))
    b_surprise = tl.where(m_best, normaliser - b_best, 0.0)
    count = tl.sum(m_best.to(tl.float32), axis=0)
    tl.store(confidence + i_row, tl.sum(b_surprise, axis=0) / count)


# A window is what a request asks for: it must not compile a variant while others wait.
@triton.jit(do_not_specialize=["stride", "width"])
def _window_mean(ring, stride, confidence, position, window, width, new_ring, mean):
    """Copy a row's ring with its new entry, and average what counts."""
    i_row = tl.program_id(0).to(tl.int64)
    b_confidence = tl.load(confidence + i_row)
    # A padded row may hold any number: it must still point inside the ring.
    b_window = tl.minimum(tl.maximum(tl.load(window + i_row), 1), width)
    b_position = tl.maximum(tl.load(position + i_row), 0)
    live = tl.minimum(b_position + 1, b_window)
    b_total = tl.zeros((RING_BLOCK,), dtype=tl.float64)
    for i_block in range(tl.cdiv(width, RING_BLOCK)):
        o_entry = i_block * RING_BLOCK + tl.arange(0, RING_BLOCK)
        m_entry = o_entry < width
        b_ring = tl.load(ring + i_row * stride + o_entry, mask=m_entry, other=0.0)
        b_ring = tl.where(o_entry == b_position % b_window, b_confidence, b_ring)
        tl.store(new_ring + i_row * width + o_entry, b_ring, mask=m_entry)
        b_total += tl.where(o_entry < live, b_ring, 0.0).to(tl.float64)
    tl.store(mean + i_row, (tl.sum(b_total, axis=0) / live.to(tl.float64)).to(tl.float32))


def confidence(logits: Tensor, k: Tensor) -> Tensor:
    """Measure how sure the model is of its next token; arguments and result as in `reference.confidence`."""
    rows, vocabulary = logits.shape
    result = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if not rows:
        return result
    logits, parts = adjacent(logits), tiles(vocabulary)
    groups = parts * (TILE.value // GROUP.value)
    top = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    total = torch.empty_like(top)
    group_top = torch.empty(rows, groups, dtype=torch.float32, device=logits.device)
    row = logits, logits.stride(0), vocabulary, top, total, group_top
    _confidence_tiles[parts, rows](*row, num_warps=4, enable_fp_fusion=True)
    _confidence_rows[(rows,)](
        *row,
        parts,
        k.contiguous(),
        result,
        part_block=triton.next_power_of_2(parts),
        group_block=triton.next_power_of_2(groups),
        num_warps=8,
        enable_fp_fusion=True,
    )
    return result


def window_mean(ring: Tensor, confidence: Tensor, position: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Store a confidence and average over its window; arguments and result as in `reference.window_mean`."""
    rows, width = ring.shape
    new_ring = torch.empty(rows, width, dtype=torch.float32, device=ring.device)
    mean = torch.empty(rows, dtype=torch.float32, device=ring.device)
    if rows:
        ring = adjacent(ring)
        columns = confidence.contiguous(), position.contiguous(), window.contiguous()
        _window_mean[(rows,)](ring, ring.stride(0), *columns, width, new_ring, mean, num_warps=4, enable_fp_fusion=True)
    return new_ring, mean
