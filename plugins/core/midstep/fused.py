"""Any number of threshold rules, the request's own cuts and the draw in one go, in Triton: one read of the row.

The first kernel reads the row once: its statistics, the draw from all of it, and the maximum of every GROUP adjacent
tokens. The second finds the first rule's threshold, and lists the groups that reach it: a few of thousands. The third
visits only those: once for each further rule, whose statistics are those of what the rules before it left, some times
for top-k and top-p (`midstep.bisection`), and once for the draw, if the token that was drawn from all of the row was
refused. Where no further rule must see them, groups that top-k, top-p or min-p removes anyway are not listed.

Every rule is compiled into the kernels, each row says which of them it uses, and the cuts are numbers, so what requests
ask for never compiles anything.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import listing
from .bisection import own_threshold
from .device import LOWEST, NO_ID, argmax, row_statistics, tile_statistics
from .listing import BOUNDS, ENOUGH, FIRST, LEAST, LOGIT, TOP, Room, listed, rule_threshold
from .visits import VISITED, group_noise, load_groups, merged, one


class Fused(NamedTuple):
    """What became of each row.

    Args:
        token: [R] int64, drawn from what the rules and cuts left; `whole`: drawn from all of the row.
        refused: [R, rules] bool, the rule refused the token `whole`, which the rules before it had left.
        empty: [R, rules] bool, the rule would have left nothing, and was passed over.
    """

    token: Tensor
    whole: Tensor
    refused: Tensor
    empty: Tensor


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
    cuts,
    whole,
    bounds,
    first_rule,
    refused,
    empty,
    live,
    live_count,
    ids,
    rules: tl.constexpr,
    count: tl.constexpr,
):
    """Apply each row's further rules and cuts to what is left, and draw from that if the row's token was refused."""
    i_row = tl.program_id(0).to(tl.int64)
    warmth, alive = tl.load(temperature + i_row), tl.load(live_count + i_row)
    known = bounds + i_row * BOUNDS
    threshold, logit = tl.load(known + FIRST), tl.load(known + LOGIT)
    for which in range(tl.load(first_rule + i_row) + 1, count):
        if tl.load(uses + i_row * count + which):
            # Running sums over the steps of the visit, as `row_statistics` folds them over tiles.
            top = tl.full((), LOWEST, tl.float32)
            total, weighted, squares, finite, mean, apart = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for at in range(0, alive, VISITED):
                _, b_logits, _ = load_groups(
                    logits, i_row, stride, vocabulary, warmth, live, groups, at, alive, threshold
                )
                top, total, weighted, squares, finite, mean, apart = merged(
                    top, total, weighted, squares, finite, mean, apart, tile_statistics(b_logits)
                )
            left = row_statistics(one(top), one(total), one(weighted), one(squares), one(finite), one(mean), one(apart))
            found = rule_threshold(left, columns, i_row, which, rules, count)
            leaves_none = found > top
            tl.store(empty + i_row * count + which, leaves_none)
            found = tl.where(leaves_none | (found != found), threshold, found)
            tl.store(refused + i_row * count + which, (logit >= threshold) & (logit < found))
            threshold = tl.maximum(threshold, found)
    own = cuts + i_row * 3
    threshold = own_threshold(
        logits,
        i_row,
        stride,
        vocabulary,
        warmth,
        live,
        groups,
        alive,
        tl.maximum(threshold, tl.load(known + LEAST)),
        logit,
        tl.load(known + TOP),
        tl.load(known + ENOUGH),
        tl.load(own),
        tl.load(own + 1),
        tl.load(own + 2),
    )
    token = tl.load(whole + i_row).to(tl.int32)
    if logit < threshold:
        best, token = float("-inf"), tl.full((), NO_ID, tl.int32)
        noisy = tl.load(sampled + i_row)
        for at in range(0, alive, VISITED):
            o_token, b_logits, b_group = load_groups(
                logits, i_row, stride, vocabulary, warmth, live, groups, at, alive, threshold
            )
            if noisy:
                b_logits += group_noise(tl.load(seed + i_row), tl.load(position + i_row), b_group)
            step_best, step_token = argmax(b_logits, o_token)
            # Groups are listed in their order, so an equal later one has the higher id.
            token = tl.where(step_best > best, step_token, token)
            best = tl.maximum(best, step_best)
        token = tl.where(token < vocabulary, token, 0)
    tl.store(ids + i_row, token.to(tl.int64))


def fused(
    logits: Tensor,
    temperature: Tensor,
    rules: tuple[Any, ...],
    columns: Tensor,
    uses: Tensor,
    cuts: Tensor,
    seed: Tensor,
    position: Tensor,
    sampled: Tensor,
    room: Room | None = None,
) -> Fused:
    """Apply threshold rules one after the other, then the row's own cuts, and draw from what they leave.

    The same as the pipeline's stages: temperature, the rules in their order, each on what the earlier ones left, the
    cuts, the draw. A rule that would leave nothing is passed over.

    Args:
        logits: [R, V] float32 or bfloat16, untempered, no NaN.
        temperature: [R] float32.
        rules: Triton functions, as `midstep.threshold.keep` takes them.
        columns: [R, rules, 2] float32, what each rule gets.
        uses: [R, rules] bool.
        cuts: [R, 3] float32, `midstep.sampling.cut_numbers`.
        seed: [R] int64, and position, sampled as in `midstep.noise.draw`.
        room: of a call of the same size, whose results are not needed any more; what is returned lies there.
    """
    rows, count = len(logits), len(rules)
    if not rows:
        ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
        return Fused(ids, ids, uses, uses)
    room = room or listing.room(rows, logits.shape[1], count, logits.device)
    columns, uses, cuts = columns.contiguous(), uses.contiguous(), cuts.contiguous()
    draws = seed.contiguous(), position.contiguous(), sampled.contiguous()
    row, found, groups = listed(logits, temperature.contiguous(), rules, columns, uses, cuts, draws, room)
    _visit_rows[(rows,)](
        *row,
        *draws,
        groups,
        columns,
        uses,
        cuts,
        *found,
        room.ids,
        rules=rules,
        count=count,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return Fused(room.ids, room.whole, room.refused, room.empty)
