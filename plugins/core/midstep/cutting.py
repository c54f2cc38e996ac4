"""The request's own top-k, top-p and min-p in Triton, for rows that do not run fused; no sort."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .bisection import own_threshold
from .device import load_tile, tiles
from .listing import BOUNDS, ENOUGH, LEAST, TOP, listed, room
from .sampling import cut_numbers


@triton.jit
def _search_rows(logits, stride, vocabulary, groups, cuts, bounds, live, live_count, threshold):
    """Leave each row's threshold, [R] float32."""
    i_row = tl.program_id(0).to(tl.int64)
    known, own = bounds + i_row * BOUNDS, cuts + i_row * 3
    found = own_threshold(
        logits,
        i_row,
        stride,
        vocabulary,
        1.0,
        live,
        groups,
        tl.load(live_count + i_row),
        tl.load(known + LEAST),
        float("-inf"),
        tl.load(known + TOP),
        tl.load(known + ENOUGH),
        tl.load(own),
        tl.load(own + 1),
        tl.load(own + 2),
    )
    tl.store(threshold + i_row, found)


@triton.jit
def _cut_tiles(logits, stride, vocabulary, threshold, left):
    """Write what is not below the row's threshold to `left` [R, V], -inf for the rest."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    b_left = tl.where(b_logits < tl.load(threshold + i_row), float("-inf"), b_logits)
    tl.store(left + i_row * vocabulary + o_token, b_left, mask=o_token < vocabulary)


def cut(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Apply the cuts; arguments and result as in `midstep.sampling.cut`, up to the rounding of top-p's sums."""
    rows, vocabulary = logits.shape
    left = torch.empty(rows, vocabulary, dtype=torch.float32, device=logits.device)
    if rows:
        row, threshold = _thresholds(logits, top_k, top_p, min_p)
        _cut_tiles[tiles(vocabulary), rows](*row, threshold, left, num_warps=4, enable_fp_fusion=True)
    return left


def nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """Find what top-p leaves; as `midstep.sampling.nucleus`, up to the rounding of the sums."""
    if not len(logits):
        return torch.empty(0, dtype=torch.float32, device=logits.device)
    _, threshold = _thresholds(logits, torch.zeros_like(top_p), top_p, torch.zeros_like(top_p))
    return threshold.masked_fill(top_p >= 1.0, -torch.inf)


def _thresholds(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> tuple[tuple[Any, ...], Tensor]:
    """Return the logits as the kernels read them, with stride and vocabulary, and each row's threshold [R] float32."""
    rows, device = len(logits), logits.device
    threshold = torch.empty(rows, dtype=torch.float32, device=device)
    nothing, never = torch.zeros(rows, dtype=torch.int64, device=device), torch.zeros(rows, 0, device=device)
    cuts, tempered = cut_numbers(top_k, top_p, min_p), torch.ones(rows, device=device)
    draws = nothing, nothing, nothing.bool()
    own = draws, room(rows, logits.shape[1], 0, device)
    row, found, groups = listed(logits, tempered, (), never, never.bool(), cuts, *own)
    _, bounds, _, _, _, live, live_count = found
    _search_rows[(rows,)](
        *row[:3], groups, cuts, bounds, live, live_count, threshold, num_warps=8, enable_fp_fusion=True
    )
    return row[:3], threshold
