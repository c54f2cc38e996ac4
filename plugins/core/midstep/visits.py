"""Triton device functions of kernels that visit what is left of a row: the groups of adjacent tokens on a list."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from .device import GROUP, TILE, gumbel, noise_bits

VISITED = tl.constexpr(TILE.value // GROUP.value)  # groups that one step of a visit reads
CALLS = tl.constexpr(GROUP.value // 4)  # calls of Philox for a group


@triton.jit
def temper(b_logits, temperature):
    """Divide as `midstep.sampling.temper` does, to the bit."""
    if (temperature > 0.0) & (temperature != 1.0):
        b_logits = tl.div_rn(b_logits, temperature)
    return b_logits


@triton.jit
def load_groups(logits, i_row, stride, vocabulary, temperature, live, groups, at, alive, cut):
    """Load the next groups of a visit: ids [TILE], tempered logits [TILE], -inf below the cut, and the groups."""
    o_slot = at + tl.arange(0, VISITED)
    b_group = tl.load(live + i_row * groups + o_slot, mask=o_slot < alive, other=0)
    o_token = b_group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    m_token = (o_slot < alive)[:, None] & (o_token < vocabulary)
    b_logits = tl.load(logits + i_row * stride + o_token, mask=m_token, other=float("-inf")).to(tl.float32)
    b_logits = temper(b_logits, temperature)
    b_logits = tl.where(b_logits >= cut, b_logits, float("-inf"))
    return tl.reshape(o_token, (TILE,)), tl.reshape(b_logits, (TILE,)), b_group


@triton.jit
def one(x):
    """Make a block of one out of a scalar."""
    return x + tl.zeros((1,), dtype=tl.float32)


@triton.jit
def merged(top, total, weighted, squares, finite, mean, apart, step):
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
def group_noise(seed, position, b_group):
    """Return the noise of whole groups, [TILE] float32: the same numbers as `tile_noise` gives these tokens."""
    o_call = b_group[:, None] * CALLS + tl.arange(0, CALLS)[None, :]
    b0, b1, b2, b3 = noise_bits(seed, position, 0, tl.reshape(o_call, (VISITED * CALLS,)))
    b_even = tl.join(gumbel(b0), gumbel(b2))
    b_odd = tl.join(gumbel(b1), gumbel(b3))
    return tl.reshape(tl.join(b_even, b_odd), (TILE,))
