"""The first two of the fused kernels: they read each row once, apply its first rule, and list what may be left."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .bisection import above_groups
from .device import (
    GROUP,
    LOG2E,
    LOWEST,
    TILE,
    adjacent,
    argmax,
    load_tile,
    row_winner,
    tile_noise,
    tile_statistics,
    tiles,
)
from .threshold import PARTIALS, fold
from .visits import temper

BOUNDS = tl.constexpr(5)  # numbers that a row's listing leaves
LOGIT = tl.constexpr(0)  # of the token drawn from all of the row
FIRST = tl.constexpr(1)  # the first rule's threshold
LEAST = tl.constexpr(2)  # the list's: that, or more
TOP = tl.constexpr(3)  # the best logit
ENOUGH = tl.constexpr(4)  # the weight that top-p needs above a token to drop it; negative if not known yet


@triton.jit
def _read_tiles(
    logits, stride, vocabulary, temperature, seed, position, sampled, partials, best, token, group_top, groups
):
    """Leave each tile's statistics, its best noised logit with its id, and its groups' maxima."""
    i_row = tl.program_id(1).to(tl.int64)
    i_tile, parts = tl.program_id(0), tl.num_programs(0)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    b_logits = temper(b_logits, tl.load(temperature + i_row))
    found = tile_statistics(b_logits)
    for i in tl.static_range(PARTIALS):
        tl.store(partials + (i_row * PARTIALS + i) * parts + i_tile, found[i])
    o_group = i_tile * (TILE // GROUP) + tl.arange(0, TILE // GROUP)
    b_top = tl.max(tl.reshape(b_logits, (TILE // GROUP, GROUP)), axis=1)
    tl.store(group_top + i_row * groups + o_group, b_top, mask=o_group < groups)
    if tl.load(sampled + i_row):
        b_logits += tile_noise(tl.load(seed + i_row), tl.load(position + i_row), 0)
    b_best, b_token = argmax(b_logits, o_token)
    tl.store(best + i_row * parts + i_tile, b_best)
    tl.store(token + i_row * parts + i_tile, b_token)


@triton.jit
def rule_threshold(statistics, columns, i_row, which, rules: tl.constexpr, count: tl.constexpr):
    """Return the threshold of rule `which`, a run-time number."""
    threshold = LOWEST
    for i in tl.static_range(count):
        first = tl.load(columns + (i_row * count + i) * 2)
        second = tl.load(columns + (i_row * count + i) * 2 + 1)
        top, lse, entropy, collision, finite, spread = statistics
        found = rules[i](top, lse, entropy, collision, finite, spread, first, second)
        threshold = tl.where(which == i, found, threshold)
    return threshold


@triton.jit
def _own_bounds(partials, i_row, parts, statistics, cuts, vocabulary, ruled, part_block: tl.constexpr):
    """Return a number that the row's own top-p and min-p surely keep nothing below, and what is enough for top-p.

    Args:
        ruled: a rule is applied before them.
    """
    k, p = tl.load(cuts + i_row * 3), tl.load(cuts + i_row * 3 + 1)
    top = statistics[0]
    floor = top + tl.load(cuts + i_row * 3 + 2)
    o_part = tl.arange(0, part_block)
    at, m_part = partials + i_row * PARTIALS * parts + o_part, o_part < parts
    b_top, b_total = tl.load(at, mask=m_part, other=LOWEST), tl.load(at + parts, mask=m_part, other=0.0)
    total = tl.sum(b_total * tl.exp2(tl.maximum(b_top - top, -10000.0) * LOG2E), axis=0)
    first = ~(ruled | ((k > 0.0) & (k < vocabulary)))
    # All tokens below this have half of what top-p may drop, together.
    share = tl.maximum(1.0 - p, 1.0e-10) * 0.5 / tl.maximum(statistics[4], 1.0)
    tail = top + tl.log(tl.maximum(total, 1.0e-30) * share)
    bound = tl.where(p < 1.0, tl.where(first, tl.maximum(tail, floor), float("-inf")), floor)
    return bound, tl.where(first & (p < 1.0), p * total, -1.0)


@triton.jit
def _list_rows(
    logits,
    stride,
    vocabulary,
    temperature,
    partials,
    best,
    token,
    parts,
    group_top,
    groups,
    columns,
    uses,
    cuts,
    whole,
    bounds,
    first_rule,
    refused,
    empty,
    live,
    live_count,
    rules: tl.constexpr,
    count: tl.constexpr,
    part_block: tl.constexpr,
    group_block: tl.constexpr,
):
    """Apply each row's first rule, and list the groups that reach its threshold."""
    i_row = tl.program_id(0).to(tl.int64)
    drawn = row_winner(best, token, i_row, parts, vocabulary, part_block)
    logit = temper(tl.load(logits + i_row * stride + drawn).to(tl.float32), tl.load(temperature + i_row))
    tl.store(whole + i_row, drawn.to(tl.int64))

    which, used = count, 0
    for i in tl.static_range(count - 1, -1, -1):
        uses_it = tl.load(uses + i_row * count + i)
        which, used = tl.where(uses_it, i, which), used + uses_it.to(tl.int32)
        tl.store(refused + i_row * count + i, False)
        tl.store(empty + i_row * count + i, False)
    statistics = fold(partials, i_row, parts, part_block)
    which = tl.where(statistics[4] > 0.0, which, count)  # a row without a token has nothing to refuse
    threshold = rule_threshold(statistics, columns, i_row, which, rules, count)
    # A threshold of NaN keeps everything.
    leaves_none = threshold > statistics[0]
    keeps_all = leaves_none | (threshold != threshold) | (which == count)
    threshold = tl.where(keeps_all, LOWEST, threshold)
    tl.store(first_rule + i_row, which)
    if which < count:
        tl.store(refused + i_row * count + which, logit < threshold)
        tl.store(empty + i_row * count + which, leaves_none)

    o_group = tl.arange(0, group_block)
    m_group = o_group < groups
    b_top = tl.load(group_top + i_row * groups + o_group, mask=m_group, other=float("-inf"))
    least, enough = threshold, -1.0
    if used < 2:
        bound, enough = _own_bounds(partials, i_row, parts, statistics, cuts, vocabulary, which < count, part_block)
        least = tl.maximum(threshold, bound)
        k = tl.load(cuts + i_row * 3)
        if (k > 0.0) & (k < vocabulary):
            least = above_groups(b_top, k, least, statistics[0])
    at = bounds + i_row * BOUNDS
    tl.store(at + LOGIT, logit)
    tl.store(at + FIRST, threshold)
    tl.store(at + LEAST, least)
    tl.store(at + TOP, statistics[0])
    tl.store(at + ENOUGH, enough)

    b_live = m_group & (b_top >= least)
    b_live_int = b_live.to(tl.int32)
    tl.store(live + i_row * groups + tl.cumsum(b_live_int, axis=0) - 1, o_group, mask=b_live)
    tl.store(live_count + i_row, tl.sum(b_live_int, axis=0))


class Room(NamedTuple):
    """Where the fused kernels leave what they find, for calls of the same size, one after the other."""

    partials: Tensor  # [R, PARTIALS, tiles] float32
    best: Tensor  # [R, tiles] float32
    token: Tensor  # [R, tiles] int32
    group_top: Tensor  # [R, groups] float32
    whole: Tensor  # [R] int64
    bounds: Tensor  # [R, BOUNDS] float32
    first_rule: Tensor  # [R] int32
    refused: Tensor  # [R, rules] bool
    empty: Tensor  # [R, rules] bool
    live: Tensor  # [R, groups] int32
    live_count: Tensor  # [R] int32
    ids: Tensor  # [R] int64


def room(rows: int, vocabulary: int, count: int, device: torch.device) -> Room:
    """Make room for `rows` rows and `count` rules."""

    def empty(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(rows, *shape, dtype=dtype, device=device)

    parts, groups = tiles(vocabulary), -(-vocabulary // int(GROUP.value))
    return Room(
        empty(torch.float32, int(PARTIALS.value), parts),
        empty(torch.float32, parts),
        empty(torch.int32, parts),
        empty(torch.float32, groups),
        empty(torch.int64),
        empty(torch.float32, int(BOUNDS.value)),
        empty(torch.int32),
        empty(torch.bool, count),
        empty(torch.bool, count),
        empty(torch.int32, groups),
        empty(torch.int32),
        empty(torch.int64),
    )


class Listed(NamedTuple):
    """What the first two kernels leave for the third: a row as they read it, and their findings, in its order."""

    row: tuple[Tensor, int, int, Tensor]
    found: tuple[Tensor, ...]
    groups: int


def listed(
    logits: Tensor,
    temperature: Tensor,
    rules: tuple[Any, ...],
    columns: Tensor,
    uses: Tensor,
    cuts: Tensor,
    draws: tuple[Tensor, Tensor, Tensor],
    room: Room,
) -> Listed:
    """Read each row, apply its first rule and list its groups; arguments as in `fused`, not empty, adjacent."""
    rows, vocabulary = logits.shape
    logits, parts, groups = adjacent(logits), tiles(vocabulary), room.group_top.shape[1]
    partials, best, token, group_top = room[:4]
    row = logits, logits.stride(0), vocabulary, temperature
    _read_tiles[parts, rows](*row, *draws, partials, best, token, group_top, groups, num_warps=4, enable_fp_fusion=True)
    found = room[4:-1]
    _list_rows[(rows,)](
        *row,
        partials,
        best,
        token,
        parts,
        group_top,
        groups,
        columns,
        uses,
        cuts,
        *found,
        rules=rules,
        count=len(rules),
        part_block=triton.next_power_of_2(parts),
        group_block=triton.next_power_of_2(groups),
        num_warps=8,
        enable_fp_fusion=True,
    )
    return Listed(row, found, groups)
