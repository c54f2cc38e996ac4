"""Any number of threshold rules and the draw in one go, in Triton: one read of the row, then visits to what is left.

The first kernel reads the row once: its statistics, the draw from all of it, and the maximum of every GROUP adjacent
tokens. The second finds the first rule's threshold, and lists the groups that reach it: a few of thousands. The third
visits only those: once for each further rule, whose statistics are those of what the rules before it left, and once for
the draw, if the rules refused the token that was drawn from all of the row.

Every rule is compiled into the kernels and each row says which of them it uses, so what requests ask for never compiles
anything.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import (
    GROUP,
    LOWEST,
    NO_ID,
    TILE,
    adjacent,
    argmax,
    gumbel,
    load_tile,
    noise_bits,
    row_statistics,
    row_winner,
    tile_noise,
    tile_statistics,
    tiles,
)
from .threshold import PARTIALS, fold

VISITED = tl.constexpr(TILE.value // GROUP.value)  # groups that one step of a visit reads
CALLS = tl.constexpr(GROUP.value // 4)  # calls of Philox for a group


class Fused(NamedTuple):
    """What became of each row.

    Args:
        token: [R] int64, drawn from what the rules left; `whole`: drawn from all of the row.
        refused: [R, rules] bool, the rule refused the token `whole`, which the rules before it had left.
        empty: [R, rules] bool, the rule would have left nothing, and was passed over.
    """

    token: Tensor
    whole: Tensor
    refused: Tensor
    empty: Tensor


@triton.jit
def _temper(b_logits, temperature):
    """Divide as `midstep.sampling.temper` does, to the bit."""
    if (temperature > 0.0) & (temperature != 1.0):
        b_logits = tl.div_rn(b_logits, temperature)
    return b_logits


@triton.jit
def _read_tiles(
    logits, stride, vocabulary, temperature, seed, position, sampled, partials, best, token, group_top, groups
):
    """Leave each tile's statistics, its best noised logit with its id, and its groups' maxima."""
    i_row = tl.program_id(1).to(tl.int64)
    i_tile, parts = tl.program_id(0), tl.num_programs(0)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    b_logits = _temper(b_logits, tl.load(temperature + i_row))
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
def _threshold(statistics, columns, i_row, which, rules: tl.constexpr, count: tl.constexpr):
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
    whole,
    whole_logit,
    cut,
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
    logit = _temper(tl.load(logits + i_row * stride + drawn).to(tl.float32), tl.load(temperature + i_row))
    tl.store(whole + i_row, drawn.to(tl.int64))
    tl.store(whole_logit + i_row, logit)

    which = count
    for i in tl.static_range(count - 1, -1, -1):
        which = tl.where(tl.load(uses + i_row * count + i), i, which)
        tl.store(refused + i_row * count + i, False)
        tl.store(empty + i_row * count + i, False)
    statistics = fold(partials, i_row, parts, part_block)
    threshold = _threshold(statistics, columns, i_row, which, rules, count)
    # A threshold of NaN keeps everything.
    leaves_none = threshold > statistics[0]
    keeps_all = leaves_none | (threshold != threshold) | (which == count)
    threshold = tl.where(keeps_all, LOWEST, threshold)
    tl.store(cut + i_row, threshold)
    tl.store(first_rule + i_row, which)
    if which < count:
        tl.store(refused + i_row * count + which, logit < threshold)
        tl.store(empty + i_row * count + which, leaves_none)

    o_group = tl.arange(0, group_block)
    m_group = o_group < groups
    b_top = tl.load(group_top + i_row * groups + o_group, mask=m_group, other=float("-inf"))
    b_live = m_group & (b_top >= threshold)
    b_live_int = b_live.to(tl.int32)
    tl.store(live + i_row * groups + tl.cumsum(b_live_int, axis=0) - 1, o_group, mask=b_live)
    tl.store(live_count + i_row, tl.sum(b_live_int, axis=0))


@triton.jit
def _load_groups(logits, i_row, stride, vocabulary, temperature, live, groups, at, alive, cut):
    """Load the next groups of a visit: ids [TILE], tempered logits [TILE], -inf below the cut, and the groups."""
    o_slot = at + tl.arange(0, VISITED)
    b_group = tl.load(live + i_row * groups + o_slot, mask=o_slot < alive, other=0)
    o_token = b_group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    m_token = (o_slot < alive)[:, None] & (o_token < vocabulary)
    b_logits = tl.load(logits + i_row * stride + o_token, mask=m_token, other=float("-inf")).to(tl.float32)
    b_logits = _temper(b_logits, temperature)
    b_logits = tl.where(b_logits >= cut, b_logits, float("-inf"))
    return tl.reshape(o_token, (TILE,)), tl.reshape(b_logits, (TILE,)), b_group


@triton.jit
def _visit_rows(
    logits,
    stride,
    vocabulary,
    temperature,
    seed,
    position,
    sampled,
    groups,
    columns,
    uses,
    whole,
    whole_logit,
    cut,
    first_rule,
    refused,
    empty,
    live,
    live_count,
    ids,
    rules: tl.constexpr,
    count: tl.constexpr,
):
    """Apply each row's further rules to what is left, and draw from that if the row's token was refused."""
    i_row = tl.program_id(0).to(tl.int64)
    warmth, alive = tl.load(temperature + i_row), tl.load(live_count + i_row)
    threshold, logit = tl.load(cut + i_row), tl.load(whole_logit + i_row)
    for which in range(tl.load(first_rule + i_row) + 1, count):
        if tl.load(uses + i_row * count + which):
            # Running sums over the steps of the visit, as `row_statistics` folds them over tiles.
            top, total, weighted, squares, finite, mean, apart = LOWEST, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for at in range(0, alive, VISITED):
                _, b_logits, _ = _load_groups(
                    logits, i_row, stride, vocabulary, warmth, live, groups, at, alive, threshold
                )
                top, total, weighted, squares, finite, mean, apart = _merged(
                    top, total, weighted, squares, finite, mean, apart, tile_statistics(b_logits)
                )
            left = row_statistics(
                _one(top), _one(total), _one(weighted), _one(squares), _one(finite), _one(mean), _one(apart)
            )
            found = _threshold(left, columns, i_row, which, rules, count)
            leaves_none = found > top
            tl.store(empty + i_row * count + which, leaves_none)
            found = tl.where(leaves_none | (found != found), threshold, found)
            tl.store(refused + i_row * count + which, (logit >= threshold) & (logit < found))
            threshold = tl.maximum(threshold, found)
    token = tl.load(whole + i_row).to(tl.int32)
    if logit < threshold:
        best, token = float("-inf"), NO_ID
        noisy = tl.load(sampled + i_row)
        for at in range(0, alive, VISITED):
            o_token, b_logits, b_group = _load_groups(
                logits, i_row, stride, vocabulary, warmth, live, groups, at, alive, threshold
            )
            if noisy:
                b_logits += _group_noise(tl.load(seed + i_row), tl.load(position + i_row), b_group)
            step_best, step_token = argmax(b_logits, o_token)
            # Groups are listed in their order, so an equal later one has the higher id.
            token = tl.where(step_best > best, step_token, token)
            best = tl.maximum(best, step_best)
        token = tl.where(token < vocabulary, token, 0)
    tl.store(ids + i_row, token.to(tl.int64))


@triton.jit
def _one(x):
    """Make a block of one out of a scalar."""
    return x + tl.zeros((1,), dtype=tl.float32)


@triton.jit
def _merged(top, total, weighted, squares, finite, mean, apart, step):
    """Add a step's statistics to the running ones."""
    s_top, s_total, s_weighted, s_squares, s_finite, s_mean, s_apart = step
    new_top = tl.maximum(top, s_top)
    below, s_below = tl.maximum(top - new_top, -10000.0), tl.maximum(s_top - new_top, -10000.0)
    scale, s_scale = tl.exp(below), tl.exp(s_below)
    new_finite = finite + s_finite
    off, share = s_mean - mean, s_finite / tl.maximum(new_finite, 1.0)
    off = tl.where((finite > 0.0) & (s_finite > 0.0), off, 0.0)
    new_mean = tl.where(finite > 0.0, mean + off * share, s_mean)
    return (
        new_top,
        total * scale + s_total * s_scale,
        (weighted + total * below) * scale + (s_weighted + s_total * s_below) * s_scale,
        squares * scale * scale + s_squares * s_scale * s_scale,
        new_finite,
        new_mean,
        apart + s_apart + off * off * finite * share,
    )


@triton.jit
def _group_noise(seed, position, b_group):
    """Return the noise of whole groups, [TILE] float32: the same numbers as `tile_noise` gives these tokens."""
    o_call = b_group[:, None] * CALLS + tl.arange(0, CALLS)[None, :]
    b0, b1, b2, b3 = noise_bits(seed, position, 0, tl.reshape(o_call, (VISITED * CALLS,)))
    b_even = tl.join(gumbel(b0), gumbel(b2))
    b_odd = tl.join(gumbel(b1), gumbel(b3))
    return tl.reshape(tl.join(b_even, b_odd), (TILE,))


def fused(
    logits: Tensor,
    temperature: Tensor,
    rules: tuple[Any, ...],
    columns: Tensor,
    uses: Tensor,
    seed: Tensor,
    position: Tensor,
    sampled: Tensor,
) -> Fused:
    """Apply threshold rules one after the other, and draw from what they leave.

    The same as the pipeline's stages: temperature, the rules in their order, each on what the earlier ones left, the
    draw. A rule that would leave nothing is passed over.

    Args:
        logits: [R, V] float32 or bfloat16, untempered, no NaN.
        temperature: [R] float32.
        rules: Triton functions, as `midstep.threshold.keep` takes them.
        columns: [R, rules, 2] float32, what each rule gets.
        uses: [R, rules] bool.
        seed: [R] int64, and position, sampled as in `midstep.noise.draw`.
    """
    rows, vocabulary = logits.shape
    device, count = logits.device, len(rules)
    ids, whole = (torch.empty(rows, dtype=torch.int64, device=device) for _ in range(2))
    refused, empty = (torch.empty(rows, count, dtype=torch.bool, device=device) for _ in range(2))
    if not rows:
        return Fused(ids, whole, refused, empty)
    logits, parts, groups = adjacent(logits), tiles(vocabulary), -(-vocabulary // int(GROUP.value))
    partials = torch.empty(rows, int(PARTIALS.value), parts, dtype=torch.float32, device=device)
    best = torch.empty(rows, parts, dtype=torch.float32, device=device)
    token = torch.empty(rows, parts, dtype=torch.int32, device=device)
    group_top = torch.empty(rows, groups, dtype=torch.float32, device=device)
    live = torch.empty(rows, groups, dtype=torch.int32, device=device)
    live_count, first_rule = (torch.empty(rows, dtype=torch.int32, device=device) for _ in range(2))
    whole_logit, cut = (torch.empty(rows, dtype=torch.float32, device=device) for _ in range(2))
    row = logits, logits.stride(0), vocabulary, temperature.contiguous()
    draws = seed.contiguous(), position.contiguous(), sampled.contiguous()
    columns, uses = columns.contiguous(), uses.contiguous()
    _read_tiles[parts, rows](*row, *draws, partials, best, token, group_top, groups, num_warps=4, enable_fp_fusion=True)
    found = whole, whole_logit, cut, first_rule, refused, empty, live, live_count
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
        *found,
        rules=rules,
        count=count,
        part_block=triton.next_power_of_2(parts),
        group_block=triton.next_power_of_2(groups),
        num_warps=8,
        enable_fp_fusion=True,
    )
    _visit_rows[(rows,)](
        *row,
        *draws,
        groups,
        columns,
        uses,
        *found,
        ids,
        rules=rules,
        count=count,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return Fused(ids, whole, refused, empty)
