"""Mirostat 2 in Triton: a read for the normaliser, and one that truncates and draws; nothing of a row is written."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import LOG2E, adjacent, argmax, load_tile, row_winner, tile_noise, tiles
from midstep.threshold import statistics

from .reference import LN2


@triton.jit
def _choose_tiles(logits, stride, vocabulary, cut, top, seed, position, sampled, best, token, total):
    """Leave, of each tile's logits not below `cut`, the best noised one, its id, and the sum of exp(x - top).

    All three are [R, tiles].
    """
    i_row = tl.program_id(1).to(tl.int64)
    o_token, b_logits = load_tile(logits, stride, vocabulary)
    b_kept = tl.where(b_logits < tl.load(cut + i_row), float("-inf"), b_logits)
    i_part = i_row * tl.num_programs(0) + tl.program_id(0)
    tl.store(total + i_part, tl.sum(tl.exp2((b_kept - tl.load(top + i_row)) * LOG2E), axis=0))
    if tl.load(sampled + i_row):
        b_kept += tile_noise(tl.load(seed + i_row), tl.load(position + i_row), 0)
    b_best, b_token = argmax(b_kept, o_token)
    tl.store(best + i_part, b_best)
    tl.store(token + i_part, b_token)


@triton.jit
def _choose_rows(
    logits,
    stride,
    vocabulary,
    best,
    token,
    total,
    parts,
    top,
    lse,
    mu,
    tau,
    eta,
    surprise,
    sampled,
    ids,
    new_mu,
    part_block: tl.constexpr,
):
    """Fold a row's tiles into `ids` [R], and correct its bound into `new_mu` [R]."""
    i_row = tl.program_id(0).to(tl.int64)
    o_part = tl.arange(0, part_block)
    m_part = o_part < parts
    b_total = tl.load(total + i_row * parts + o_part, mask=m_part, other=0.0)
    winner = row_winner(best, token, i_row, parts, vocabulary, part_block)
    tl.store(ids + i_row, winner.to(tl.int64))

    x = tl.load(logits + i_row * stride + winner).to(tl.float32)
    # The best token always stays, so the sum is at least 1, but in a row without a token.
    kept_lse = tl.load(top + i_row) + tl.log(tl.maximum(tl.sum(b_total, axis=0), 1.0e-30))
    lse_of_choice = tl.where(tl.load(surprise + i_row) > 0, tl.load(lse + i_row), kept_lse)
    bits = (lse_of_choice - x) * LOG2E
    b_mu = tl.load(mu + i_row)
    corrected = b_mu - tl.load(eta + i_row) * (bits - tl.load(tau + i_row))
    corrected = tl.where(x > float("-inf"), corrected, b_mu)
    tl.store(new_mu + i_row, tl.where(tl.load(sampled + i_row), corrected, b_mu))


def sample(
    logits: Tensor,
    mu: Tensor,
    tau: Tensor,
    eta: Tensor,
    surprise: Tensor,
    seed: Tensor,
    position: Tensor,
    sampled: Tensor,
) -> tuple[Tensor, Tensor]:
    """Truncate, draw, and correct the bound; arguments and results as in `reference.sample`."""
    rows, vocabulary = logits.shape
    ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
    new_mu = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if not rows:
        return ids, new_mu
    logits, parts = adjacent(logits), tiles(vocabulary)
    row = logits, logits.stride(0), vocabulary
    found = statistics(logits)
    cut = torch.minimum(found.lse - mu * LN2, found.top)
    best = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    token = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    total = torch.empty_like(best)
    sampled = sampled.contiguous()
    _choose_tiles[parts, rows](
        *row,
        cut,
        found.top,
        seed.contiguous(),
        position.contiguous(),
        sampled,
        best,
        token,
        total,
        num_warps=4,
        enable_fp_fusion=True,
    )
    columns = (column.float().contiguous() for column in (mu, tau, eta, surprise))
    _choose_rows[(rows,)](
        *row,
        best,
        token,
        total,
        parts,
        found.top,
        found.lse,
        *columns,
        sampled,
        ids,
        new_mu,
        part_block=triton.next_power_of_2(parts),
        num_warps=1,
        enable_fp_fusion=True,
    )
    return ids, new_mu
