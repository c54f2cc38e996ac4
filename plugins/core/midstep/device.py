"""Triton device functions that every method's kernel is composed of.

What they keep: the tile is a constant, so how a row is split, and the order of every sum, depends on the vocabulary
alone, never on the batch; the lowest id wins ties; -inf in gives -inf out and no NaN; float32 throughout. A kernel
takes the grid (tiles, rows) and leaves one partial result per tile, and a second kernel folds a row's partials: no
atomics, no waiting for another program. See `midstep.kernel` for the shape of it.

Import this module only where Triton is installed.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton's functions take blocks and pointers, for which there are no types.

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import libdevice

TILE = tl.constexpr(4096)  # tokens a program reads; a multiple of 4, because four tokens share one call of Philox
GROUP = tl.constexpr(64)  # tokens whose maximum stands for them when a row's best few tokens are looked for

# The interpreter does not know NVIDIA's approximate logarithm.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-3.0e38)  # stands for -inf where a difference is taken: -inf - -inf would be NaN
NO_ID = tl.constexpr(0x7FFFFFFF)
NOISE_VERSION = tl.constexpr(1)
NOISE_ROUNDS = tl.constexpr(7)


def tiles(vocabulary: int) -> int:
    """Return into how many tiles a row is split."""
    return -(-vocabulary // int(TILE.value))


def adjacent(rows: Tensor) -> Tensor:
    """Return `rows` [R, N] with its columns next to each other; rows may keep any distance. Copies only if it must."""
    return rows if rows.stride(1) == 1 else rows.contiguous()


@triton.jit
def load_tile(logits, stride, vocabulary):
    """Load this program's tile, for a grid of (tiles, rows).

    Args:
        logits: pointer to [R, V] float32 or bfloat16, columns adjacent.
        stride: distance of two rows, in elements.
        vocabulary: V.

    Returns:
        The tokens' ids, [TILE] int32, and their logits, [TILE] float32; -inf from V on.
    """
    i_row = tl.program_id(1).to(tl.int64)
    o_token = tl.program_id(0) * TILE + tl.arange(0, TILE)
    b_logits = tl.load(logits + i_row * stride + o_token, mask=o_token < vocabulary, other=float("-inf"))
    return o_token, b_logits.to(tl.float32)


@triton.jit
def argmax(b_value, o_token):
    """Return the largest value and its id; the lowest id wins ties. NO_ID if all values are NaN."""
    best = tl.max(b_value, axis=0)
    return best, tl.min(tl.where(b_value == best, o_token, NO_ID), axis=0)


@triton.jit
def row_winner(best, token, i_row, parts, vocabulary, part_block: tl.constexpr):
    """Fold what `argmax` gave for a row's tiles, both [R, tiles], and return the winner's id."""
    o_part = tl.arange(0, part_block)
    m_part = o_part < parts
    b_best = tl.load(best + i_row * parts + o_part, mask=m_part, other=float("-inf"))
    b_token = tl.load(token + i_row * parts + o_part, mask=m_part, other=NO_ID)
    _, winner = argmax(b_best, b_token)
    # A row of NaN has no best, or the padding of its last tile; what follows must find its id inside the vocabulary.
    return tl.where(winner < vocabulary, winner, 0)


@triton.jit
def log2(x):
    """Take a base-2 logarithm: on a GPU one instruction, where `tl.log2` is a polynomial of 20.

    Its error is at most 2^-22: absolute between 0.5 and 2, relative elsewhere.
    """
    if INTERPRETED:
        return tl.log2(x)
    else:
        return libdevice.fast_log2f(x)


@triton.jit
def uniform_number(bits):
    """Turn uint32 bits into (bits + 0.5) * 2^-32, float32: rounded once, and at most 1 - 2^-24."""
    # The two halves make it exact but for one rounding.
    high = (bits >> 16).to(tl.int32).to(tl.float32)
    low = (bits & 0xFFFF).to(tl.int32).to(tl.float32)
    return tl.minimum(high * 0.0000152587890625 + (low + 0.5) * 2.3283064365386963e-10, 0.99999994)


@triton.jit
def gumbel(bits):
    """Turn uint32 bits into Gumbel noise, float32: -log(-log(1 - u)) with u = (bits + 0.5) * 2^-32.

    1 - u is kept at 2^-24 or above. Absolute error below 1e-5.
    """
    u = uniform_number(bits)
    # 1 - u loses the digits of a small u, and small is where winners are: there the series of -log(1 - u).
    series = u * (1.0 + u * (0.5 + u * (0.3333333333 + u * 0.25)))
    return log2(tl.where(u < 0.04, series, log2(1.0 - u) * -LN2)) * -LN2


@triton.jit
def noise_bits(seed, position, stream, call):
    """Run one call of the noise contract (`midstep.noise`) for each of `call`.

    Args:
        seed: int64 scalar, all bits count.
        position: int64 scalar, its low 32 bits count.
        stream: int32 scalar.
        call: [N] int32, token // 4.

    Returns:
        Four blocks [N] uint32, for the tokens 4 call, 4 call + 1, and so on.
    """
    counter = call.to(tl.uint32)
    return tl.philox(seed, counter, position.to(tl.uint32), stream, NOISE_VERSION, n_rounds=NOISE_ROUNDS)


@triton.jit
def tile_noise(seed, position, stream):
    """Return the noise of this program's tile, [TILE] float32."""
    b_call = tl.program_id(0) * (TILE // 4) + tl.arange(0, TILE // 4)
    b0, b1, b2, b3 = noise_bits(seed, position, stream, b_call)
    # A join puts its two blocks side by side, so the even tokens are joined first, then the odd ones between them.
    b_even = tl.join(gumbel(b0), gumbel(b2))
    b_odd = tl.join(gumbel(b1), gumbel(b3))
    return tl.reshape(tl.join(b_even, b_odd), (TILE,))


@triton.jit
def exp_sum(b_logits):
    """Return a block's maximum m, at least LOWEST, and its sum of exp(x - m)."""
    top = tl.maximum(tl.max(b_logits, axis=0), LOWEST)
    return top, tl.sum(tl.exp2((b_logits - top) * LOG2E), axis=0)


@triton.jit
def log_sum_exp(b_top, b_sum):
    """Fold the maxima and sums that `exp_sum` gave for a row's tiles; a padded tile is (LOWEST, 0)."""
    top = tl.max(b_top, axis=0)
    # The bound keeps the product finite; what lies 10,000 nats below the maximum adds nothing.
    b_scale = tl.exp2(tl.maximum(b_top - top, -10000.0) * LOG2E)
    return top + tl.log(tl.sum(b_sum * b_scale, axis=0))


@triton.jit
def tile_statistics(b_logits):
    """Return a tile's part of a row's statistics; `row_statistics` folds them.

    Returns:
        Of the finite logits: the maximum m, at least LOWEST; the sums of e = exp(x - m), of e (x - m) and of e^2; how
        many there are, their mean, and the sum of their squared distances from it.
    """
    top = tl.maximum(tl.max(b_logits, axis=0), LOWEST)
    # The bound keeps the product finite; what lies 10,000 nats below the maximum adds nothing.
    b_below = tl.maximum(b_logits - top, -10000.0)
    b_exp = tl.exp2(b_below * LOG2E)
    b_finite = b_logits > float("-inf")
    count = tl.sum(b_finite.to(tl.float32), axis=0)
    mean = top + tl.sum(tl.where(b_finite, b_below, 0.0), axis=0) / tl.maximum(count, 1.0)
    b_apart = tl.where(b_finite, b_logits - mean, 0.0)
    total, weighted, squares = tl.sum(b_exp, axis=0), tl.sum(b_exp * b_below, axis=0), tl.sum(b_exp * b_exp, axis=0)
    return top, total, weighted, squares, count, mean, tl.sum(b_apart * b_apart, axis=0)


@triton.jit
def row_statistics(b_top, b_total, b_weighted, b_squares, b_count, b_mean, b_apart):
    """Fold what `tile_statistics` gave for a row's tiles; a padded tile is LOWEST and zeros.

    Returns:
        What `midstep.statistics.Statistics` holds, in its order.
    """
    top = tl.max(b_top, axis=0)
    b_below = tl.maximum(b_top - top, -10000.0)
    b_scale = tl.exp2(b_below * LOG2E)
    # At least 1, but in a row without a token, whose logarithms only have to be harmless.
    total = tl.maximum(tl.sum(b_total * b_scale, axis=0), 1.0e-30)
    squares = tl.maximum(tl.sum(b_squares * b_scale * b_scale, axis=0), 1.0e-30)
    weighted = tl.sum((b_weighted + b_total * b_below) * b_scale, axis=0)
    log_total = tl.log(total)
    collision = tl.log(squares) - 2.0 * log_total
    count = tl.sum(b_count, axis=0)
    mean = tl.sum(b_count * b_mean, axis=0) / tl.maximum(count, 1.0)
    b_off = tl.where(b_count > 0.0, b_mean - mean, 0.0)
    spread = tl.sum(b_apart + b_count * b_off * b_off, axis=0)
    return top, top + log_total, log_total - weighted / total, collision, count, spread


@triton.jit
def pack(x, index):
    """Pack a float32 and an index >= 0 into one int64: larger values sort higher, then lower indices."""
    bits = x.to(tl.int32, bitcast=True)
    # A negative float's lower bits count downwards.
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (key.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def packed_index(packed):
    """Return the index that was packed."""
    return 0x7FFFFFFF - (packed & 0x7FFFFFFF).to(tl.int32)
