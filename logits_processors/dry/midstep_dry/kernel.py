"""DRY in Triton: the history is compared with its own end in blocks, and only what matched is touched.

A token that several matches would continue loses the largest penalty, that is, it ends at the least of several floats.
That least is taken by integer atomics on the floats' bits, whose outcome does not depend on any order.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from midstep.device import adjacent

from . import reference

MOST = tl.constexpr(reference.MOST)
HEAVIEST = tl.constexpr(reference.HEAVIEST)
POWERS = tl.constexpr(8)  # an exponent below MOST has so many bits
BLOCK = tl.constexpr(512)  # positions that a program compares


@triton.jit
def until_breaker(ids, last, breakers, count):
    """Return how many of the last tokens, at most MOST, stand after the last breaker."""
    o_back = tl.arange(0, MOST)
    b_tail = tl.load(ids + last - o_back, mask=o_back <= last, other=-1)
    b_broken = o_back > last
    for i in range(count):
        b_broken |= b_tail == tl.load(breakers + i)
    return tl.min(tl.where(b_broken, o_back, MOST), axis=0)


@triton.jit
def lower(penalised, unsigned, o_token, b_value, m_token):
    """Set each token to the least of what it is and `b_value`; `penalised` and `unsigned` are the same memory.

    A float that is not negative orders among all as a signed integer does; a negative one orders, reversed, as an
    unsigned integer. So each atomic leaves the lesser float, whatever was there.
    """
    b_bits = b_value.to(tl.int32, bitcast=True)
    tl.atomic_min(penalised + o_token, b_bits, mask=m_token & (b_bits >= 0), sem="relaxed")
    tl.atomic_max(unsigned + o_token, b_value.to(tl.uint32, bitcast=True), mask=m_token & (b_bits < 0), sem="relaxed")


# What a request or its history decides is no reason to compile anew.
@triton.jit(do_not_specialize=["ids_stride", "breakers_stride", "breaker_count"])
def _penalise_blocks(
    logits,
    stride,
    vocabulary,
    ids,
    ids_stride,
    lengths,
    breakers,
    breakers_stride,
    breaker_count,
    multiplier,
    base,
    allowed_length,
    span,
    max_match,
    penalised,
    unsigned,
):
    """Lower what follows the matches that end in this block of positions; grid (blocks, rows).

    `penalised` [R, V] int32 holds the logits' bits before any program starts; `unsigned` is the same memory.
    """
    i_row = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * BLOCK
    length, reach = tl.load(lengths + i_row), tl.load(span + i_row)
    last = length - 1
    start = tl.where(reach > 0, tl.maximum(length - reach, 0), 0)
    if (first >= last) | (first + BLOCK <= start):
        return
    ids += i_row * ids_stride
    breakers += i_row * breakers_stride
    o_at = first + tl.arange(0, BLOCK)
    m_at = (o_at >= start) & (o_at < last)
    b_alive = m_at & (tl.load(ids + o_at, mask=m_at, other=-1) == tl.load(ids + last))
    if tl.max(b_alive.to(tl.int32), axis=0) == 0:
        return
    most = tl.minimum(until_breaker(ids, last, breakers, breaker_count), tl.load(max_match + i_row))
    if most == 0:
        return
    b_matched = b_alive.to(tl.int32)
    n = 1
    while (n < most) & (tl.max(b_alive.to(tl.int32), axis=0) > 0):
        b_alive = b_alive & (o_at - n >= start)
        token = tl.load(ids + tl.maximum(last - n, 0))
        b_alive = b_alive & (tl.load(ids + o_at - n, mask=b_alive, other=-1) == token)
        b_matched += b_alive.to(tl.int32)
        n += 1

    b_exponent = b_matched - tl.minimum(tl.load(allowed_length + i_row), MOST + 1).to(tl.int32)
    b_token = tl.load(ids + o_at + 1, mask=m_at, other=-1)
    m_token = (b_matched > 0) & (b_exponent >= 0) & (b_token >= 0) & (b_token < vocabulary)
    for i in range(breaker_count):
        m_token = m_token & (b_token != tl.load(breakers + i))
    b_power = tl.full((BLOCK,), 1.0, dtype=tl.float64)
    # Above HEAVIEST, and low enough for the product of all POWERS squares.
    square = tl.minimum(tl.load(base + i_row).to(tl.float64), 1.0e38)
    for i in tl.static_range(POWERS):
        b_power = tl.where(((b_exponent >> i) & 1) == 1, b_power * square, b_power)
        square = tl.minimum(square * square, 1.0e38)
    b_power = tl.minimum(b_power, HEAVIEST)
    b_penalty = tl.minimum(tl.load(multiplier + i_row).to(tl.float64) * b_power, HEAVIEST).to(tl.float32)
    b_logits = tl.load(logits + i_row * stride + b_token, mask=m_token, other=float("-inf")).to(tl.float32)
    lower(penalised + i_row * vocabulary, unsigned + i_row * vocabulary, b_token, b_logits - b_penalty, m_token)


def penalise(
    logits: Tensor,
    ids: Tensor,
    lengths: Tensor,
    breakers: Tensor,
    multiplier: Tensor,
    base: Tensor,
    allowed_length: Tensor,
    span: Tensor,
    max_match: Tensor,
) -> Tensor:
    """Lower what would go on repeating the context; arguments and result as in `reference.penalise`."""
    rows, vocabulary = logits.shape
    penalised = torch.empty(rows, vocabulary, dtype=torch.float32, device=logits.device)
    penalised.copy_(logits)
    if not rows:
        return penalised
    logits, ids, breakers = adjacent(logits), adjacent(ids), adjacent(breakers)
    columns = (column.contiguous() for column in (multiplier, base, allowed_length, span, max_match))
    _penalise_blocks[triton.cdiv(ids.shape[1], BLOCK.value), rows](
        logits,
        logits.stride(0),
        vocabulary,
        ids,
        ids.stride(0),
        lengths.contiguous(),
        breakers,
        breakers.stride(0),
        breakers.shape[1],
        *columns,
        penalised.view(torch.int32),
        penalised.view(torch.uint32),
        num_warps=4,
        enable_fp_fusion=True,
    )
    return penalised
