"""The repeated stretch at a text's end in Triton: one program per row, all periods side by side."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import adjacent

from . import reference

PERIODS = tl.constexpr(reference.LONGEST_PERIOD)
MOST = tl.constexpr(reference.MOST)
BLOCK = tl.constexpr(reference.BLOCK)
NEVER = tl.constexpr(1 << 30)  # more than any stretch can lack


# The length of the histories is no reason to compile anew.
@triton.jit(do_not_specialize=["stride"])
def _repeated_rows(ids, stride, lengths, generated, times, period, least, stretch, needed):
    """Compare a row's end with itself, shifted by each period, until no period goes on."""
    i_row = tl.program_id(0).to(tl.int64)
    last = tl.load(lengths + i_row) - 1
    own = tl.load(generated + i_row)
    ids += i_row * stride
    o_period = 1 + tl.arange(0, PERIODS)
    b_asked = o_period <= tl.load(period + i_row)
    b_alive = b_asked
    b_run = tl.zeros((PERIODS,), dtype=tl.int32)
    start = 0
    while (start < MOST) & (tl.max(b_alive.to(tl.int32), axis=0) > 0):
        o_back = start + tl.arange(0, BLOCK)
        b_token = tl.load(ids + last - o_back, mask=o_back < own, other=-1)
        o_before = o_period[:, None] + o_back[None, :]
        m_before = (o_before < own) & b_alive[:, None]
        b_before = tl.load(ids + last - o_before, mask=m_before, other=-1)
        b_same = m_before & (b_before == b_token[None, :])
        # The first token that does not repeat ends a period's stretch.
        b_ahead = tl.min(tl.where(b_same, BLOCK, tl.arange(0, BLOCK)[None, :]), axis=1)
        b_run += tl.where(b_alive, b_ahead, 0)
        b_alive = b_alive & (b_ahead == BLOCK)
        start += BLOCK
    b_stretch = tl.where(b_run > 0, b_run + o_period, 0)
    b_needed = tl.maximum(tl.load(times + i_row).to(tl.int32) * o_period, tl.load(least + i_row).to(tl.int32))
    b_lacking = tl.where(b_asked, b_needed - b_stretch, NEVER)
    best = tl.min(tl.where(b_lacking == tl.min(b_lacking, axis=0), o_period, PERIODS + 1), axis=0)
    tl.store(stretch + i_row, tl.sum(tl.where(o_period == best, b_stretch, 0), axis=0).to(tl.int64))
    tl.store(needed + i_row, tl.sum(tl.where(o_period == best, b_needed, 0), axis=0).to(tl.int64))


def repeated(
    ids: Tensor, lengths: Tensor, generated: Tensor, times: Tensor, period: Tensor, least: Tensor
) -> tuple[Tensor, Tensor]:
    """Measure the repeated stretch; arguments and result as in `reference.repeated`."""
    rows = len(ids)
    stretch = torch.empty(rows, dtype=torch.int64, device=ids.device)
    needed = torch.empty_like(stretch)
    if rows:
        ids = adjacent(ids)
        columns = (column.contiguous() for column in (lengths, generated, times, period, least))
        _repeated_rows[(rows,)](ids, ids.stride(0), *columns, stretch, needed, num_warps=8, enable_fp_fusion=True)
    return stretch, needed
