"""Row statistics in one read, and keep rules that are a threshold made of them, in Triton.

A method brings its rule as a Triton function of the row's statistics and up to two of its columns, and gets a kernel
that reads each row twice and writes its mask:

    @triton.jit
    def rule(top, lse, entropy, collision, finite, spread, a, b):
        return top + a

    def keep(logits, p):
        return threshold.keep(logits, rule, p.log())

`midstep.statistics` says what the numbers are, and is the definition.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import LOWEST, adjacent, load_tile, row_statistics, tile_statistics, tiles
from .statistics import Statistics

PARTIALS = tl.constexpr(7)  # numbers that a tile leaves


@triton.jit
def _statistics_tiles(logits, stride, vocabulary, partials):
    """Leave each tile's part in `partials` [R, PARTIALS, tiles]."""
    i_row = tl.program_id(1).to(tl.int64)
    _, b_logits = load_tile(logits, stride, vocabulary)
    parts = tl.num_programs(0)
    at = partials + i_row * PARTIALS * parts + tl.program_id(0)
    found = tile_statistics(b_logits)
    for i in tl.static_range(PARTIALS):
        tl.store(at + i * parts, found[i])


@triton.jit
def fold(partials, i_row, parts, part_block: tl.constexpr):
    """Fold a row's parts into its statistics."""
    o_part = tl.arange(0, part_block)
    at = partials + i_row * PARTIALS * parts + o_part
    m_part = o_part < parts
    return row_statistics(
        tl.load(at, mask=m_part, other=LOWEST),
        tl.load(at + parts, mask=m_part, other=0.0),
        tl.load(at + 2 * parts, mask=m_part, other=0.0),
        tl.load(at + 3 * parts, mask=m_part, other=0.0),
        tl.load(at + 4 * parts, mask=m_part, other=0.0),
        tl.load(at + 5 * parts, mask=m_part, other=0.0),
        tl.load(at + 6 * parts, mask=m_part, other=0.0),
    )


@triton.jit
def _statistics_rows(partials, parts, found, part_block: tl.constexpr):
    """Fold each row's parts into `found` [6, R]."""
    i_row = tl.program_id(0).to(tl.int64)
    statistics = fold(partials, i_row, parts, part_block)
    for i in tl.static_range(6):
        tl.store(found + i * tl.num_programs(0) + i_row, statistics[i])


@triton.jit
def _keep_tiles(
    logits, stride, vocabulary, partials, first, second, mask, rule: tl.constexpr, part_block: tl.constexpr
):
    """Fold the row's parts, in every tile anew, and write the tile's part of `mask` [R, V]."""
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    top, lse, entropy, collision, finite, spread = fold(partials, i_row, tl.num_programs(0), part_block)
    threshold = rule(top, lse, entropy, collision, finite, spread, tl.load(first + i_row), tl.load(second + i_row))
    # "Not below", not "at or above": a threshold of NaN keeps everything.
    b_drop = (b_logits < threshold) | (b_logits == float("-inf"))
    tl.store(mask + i_row * vocabulary + o_token, ~b_drop, mask=o_token < vocabulary)


def keep(logits: Tensor, rule: Any, first: Tensor, second: Tensor | None = None) -> Tensor:
    """Say which tokens are not below the row's threshold.

    Args:
        logits: [R, V] float32 or bfloat16.
        rule: a Triton function of the statistics, `first` and `second` that returns the threshold.
        first: [R] float32, whatever the rule needs.
        second: [R] float32, likewise.

    Returns:
        [R, V] bool; a token at -inf never stays.
    """
    rows, vocabulary = logits.shape
    mask = torch.empty(rows, vocabulary, dtype=torch.bool, device=logits.device)
    if not rows:
        return mask
    logits, partials = _partials(logits)
    first = first.float().contiguous()
    second = first if second is None else second.float().contiguous()
    parts = tiles(vocabulary)
    _keep_tiles[parts, rows](
        logits,
        logits.stride(0),
        vocabulary,
        partials,
        first,
        second,
        mask,
        rule=rule,
        part_block=triton.next_power_of_2(parts),
        num_warps=4,
        enable_fp_fusion=True,
    )
    return mask


def statistics(logits: Tensor) -> Statistics:
    """Take the statistics of each row; argument and result as in `midstep.statistics.statistics`."""
    rows, vocabulary = logits.shape
    found = torch.empty(6, rows, dtype=torch.float32, device=logits.device)
    if rows:
        parts = tiles(vocabulary)
        _, partials = _partials(logits)
        _statistics_rows[(rows,)](
            partials, parts, found, part_block=triton.next_power_of_2(parts), num_warps=1, enable_fp_fusion=True
        )
    return Statistics(*found)


def _partials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits as the kernels read them, and each tile's part, [R, PARTIALS, tiles]."""
    rows, vocabulary = logits.shape
    logits, parts = adjacent(logits), tiles(vocabulary)
    partials = torch.empty(rows, int(PARTIALS.value), parts, dtype=torch.float32, device=logits.device)
    _statistics_tiles[parts, rows](logits, logits.stride(0), vocabulary, partials, num_warps=4, enable_fp_fusion=True)
    return logits, partials
