"""M3ID's weights in Triton: what torch does in a dozen launches, in one."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import reference

GATE = tl.constexpr(reference.GATE)
BLOCK = tl.constexpr(128)  # rows of a program


@triton.jit(do_not_specialize=["rows"])
def _weigh_rows(top, lse, position, decay, mode, threshold, plausible, most, rows, weight, floor):
    """Work out `weight` and `floor` [R] for a block of rows."""
    o_row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_row = o_row < rows
    b_top = tl.load(top + o_row, mask=m_row, other=0.0)
    b_time = tl.load(position + o_row, mask=m_row, other=0).to(tl.float64)
    # In float64 the difference of two numbers near 1 has digits to spare; the bound keeps the power finite.
    b_grown = tl.exp(tl.minimum(tl.load(decay + o_row, mask=m_row, other=0.0).to(tl.float64) * b_time, 80.0)) - 1.0
    b_weight = tl.minimum(b_grown, tl.load(most + o_row, mask=m_row, other=0.0).to(tl.float64)).to(tl.float32)
    b_best = tl.exp(b_top - tl.load(lse + o_row, mask=m_row, other=0.0))
    b_unsure = b_best < tl.load(threshold + o_row, mask=m_row, other=0.0)
    b_gates = tl.load(mode + o_row, mask=m_row, other=GATE) == GATE
    tl.store(weight + o_row, tl.where(b_gates & ~b_unsure, 0.0, b_weight), mask=m_row)
    b_share = tl.load(plausible + o_row, mask=m_row, other=1.0)
    b_floor = b_top + tl.log(tl.where(b_share > 0.0, b_share, 1.0))
    b_floor = tl.where(b_gates | (b_share == 0.0), float("-inf"), b_floor)
    tl.store(floor + o_row, b_floor, mask=m_row)


def weigh(
    top: Tensor,
    lse: Tensor,
    position: Tensor,
    decay: Tensor,
    mode: Tensor,
    threshold: Tensor,
    plausible: Tensor,
    most: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return weights and floors; arguments and result as in `reference.weigh`."""
    rows = len(top)
    weight, floor = (torch.empty(rows, dtype=torch.float32, device=top.device) for _ in range(2))
    if rows:
        columns = top, lse, position, decay.float(), mode, threshold.float(), plausible.float(), most.float()
        _weigh_rows[(triton.cdiv(rows, BLOCK.value),)](
            *(column.contiguous() for column in columns), rows, weight, floor, num_warps=4, enable_fp_fusion=True
        )
    return weight, floor
