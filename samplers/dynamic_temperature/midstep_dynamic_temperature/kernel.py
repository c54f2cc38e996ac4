"""Dynamic temperature and EDT in Triton: one read for the entropy, and one pass that writes the new logits."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import adjacent, load_tile, tiles
from midstep.threshold import statistics

from . import reference


@triton.jit
def _divide_tiles(logits, stride, vocabulary, top, temperature, divided):
    """Write the tile's part of `divided` [R, V]."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    row_top = tl.load(top + i_row)
    m_there = b_logits > float("-inf")
    b_below = tl.where(m_there, b_logits - row_top, 0.0)
    b_divided = tl.where(m_there, row_top + b_below / tl.load(temperature + i_row), b_logits)
    tl.store(divided + i_row * vocabulary + o_token, b_divided, mask=o_token < vocabulary)


def divide(logits: Tensor, top: Tensor, temperature: Tensor) -> Tensor:
    """Divide each row's distances to its best token, `top` [R]; the rest as in `reference.divide`."""
    rows, vocabulary = logits.shape
    divided = torch.empty(rows, vocabulary, dtype=torch.float32, device=logits.device)
    if rows:
        logits = adjacent(logits)
        columns = top.contiguous(), temperature.contiguous(), divided
        _divide_tiles[tiles(vocabulary), rows](
            logits, logits.stride(0), vocabulary, *columns, num_warps=4, enable_fp_fusion=True
        )
    return divided


def dynamic_temperature(logits: Tensor, low: Tensor, high: Tensor, exponent: Tensor) -> Tensor:
    """Divide by dynamic temperature's T; arguments and result as in `reference.dynamic_temperature`."""
    found = statistics(logits)
    temperature = reference.between(found.entropy, found.finite, low.float(), high.float(), exponent.float())
    return divide(logits, found.top, temperature)


def edt(logits: Tensor, t0: Tensor, theta: Tensor) -> Tensor:
    """Divide by EDT's T; arguments and result as in `reference.edt`."""
    found = statistics(logits)
    return divide(logits, found.top, reference.falling(found.entropy, t0.float(), theta.float()))
