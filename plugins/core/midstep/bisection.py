"""Finds the threshold of a row's own top-k, top-p and min-p in Triton, without a sort; `sampling.cut` defines it.

Top-k and top-p keep the tokens from the smallest logit v on for which what lies above v weighs less than is needed. For
top-k a token weighs 1, and k are needed; for top-p it weighs its probability, and p is needed. A visit of the row's
listed groups weighs what lies above a pivot, and finds the tokens next to the pivot: so each visit halves the bracket,
its ends are logits of tokens, and where they meet is v. Every weight is a sum over all tokens above the pivot, in an
order that depends on the row alone, and with more addends >= 0 a rounded sum of one order never shrinks: the search is
exact, for the sums as rounded. A row whose token is known to stay is done: most are, after one visit.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from .device import LOG2E
from .visits import VISITED, load_groups

BY_VALUE = tl.constexpr(16)  # turns that halve the distance of the ends; later ones halve how many floats lie between
MOST = tl.constexpr(50)  # turns: those, and one for each bit
GUESSES = tl.constexpr(12)  # of the bound that the groups' maxima give top-k


@triton.jit
def order_key(x):
    """Turn float32 into int32 that sort as they do; the same function on the bits turns them back."""
    bits = x.to(tl.int32, bitcast=True)
    # A negative float's lower bits count downwards.
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def middle(low, high, turn):
    """Return a number from `low` up to `high`, but not `high` itself, which is above `low`."""
    a, b = order_key(low), order_key(high)
    key = (a & b) + ((a ^ b) >> 1)
    by_key = (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    found = tl.where(turn < BY_VALUE, low * 0.5 + high * 0.5, by_key)
    return tl.where((found >= low) & (found < high), found, low)


@triton.jit
def above_groups(b_top, k, least, top):
    """Return a number that at least `k` groups reach, so that at least `k` tokens do; `least` if there is none.

    Args:
        b_top: [groups] float32, the groups' maxima; `top`, the largest.
        k: float32.
    """
    bound, number = least, tl.sum((b_top >= least).to(tl.float32), axis=0)
    low = tl.maximum(least, tl.min(tl.where(b_top > float("-inf"), b_top, top), axis=0))
    high, turn = top, 0
    while (turn < GUESSES) & (number > VISITED):
        pivot = low * 0.5 + high * 0.5
        reach = tl.sum((b_top >= pivot).to(tl.float32), axis=0)
        enough = reach >= k
        bound, number = tl.where(enough, pivot, bound), tl.where(enough, reach, number)
        low, high = tl.where(enough, pivot, low), tl.where(enough, high, pivot)
        turn += 1
    return bound


@triton.jit
def weigh_above(logits, i_row, stride, vocabulary, temperature, live, groups, alive, low, pivot, top, by_number):
    """Return the weight of what lies above `pivot`, float64, its smallest logit, and the largest of what lies below.

    Only what is not below `low` is looked at.
    """
    weight = tl.full((), 0.0, tl.float64)
    above, below = float("inf"), float("-inf")
    for at in range(0, alive, VISITED):
        _, b_logits, _ = load_groups(logits, i_row, stride, vocabulary, temperature, live, groups, at, alive, low)
        m_above = b_logits > pivot
        b_weight = tl.where(by_number, 1.0, tl.exp2((b_logits - top) * LOG2E))
        weight += tl.sum(tl.where(m_above, b_weight, 0.0), axis=0).to(tl.float64)
        above = tl.minimum(above, tl.min(tl.where(m_above, b_logits, float("inf")), axis=0))
        below = tl.maximum(below, tl.max(tl.where(m_above, float("-inf"), b_logits), axis=0))
    return weight, above, below


@triton.jit
def own_threshold(
    logits,
    i_row,
    stride,
    vocabulary,
    temperature,
    live,
    groups,
    alive,
    low,
    logit,
    top,
    enough,
    k,
    p,
    log_min_p,
):
    """Return the threshold that top-k, then top-p, then min-p set a row.

    Args:
        live: [R, groups] int32, the row's groups that reach `low`, and `alive`, how many they are.
        low: what the row's rules set, or more, but not more than the answer.
        logit: of a token. If that stays, the answer may be smaller than the threshold, but not than `low`.
        top: the row's best logit.
        enough: float32, what must lie above to be enough for top-p, in exp(x - top); negative if that depends on what
            is left.
        k, p, log_min_p: float32; 0, 1 and -inf are off.
    """
    by_number = (k > 0.0) & (k < vocabulary)
    floor = top + log_min_p
    for cut in range(tl.where(by_number, 0, 1), tl.where(p < 1.0, 2, 1)):
        by_mass = cut == 1
        last = by_mass | (p >= 1.0)
        need = tl.where(by_mass, enough, k).to(tl.float64)
        # A turn before the first one weighs all that is left.
        turn = tl.where(by_mass & (enough < 0.0), -1, 0)
        low = tl.where(last & (turn == 0), tl.maximum(low, floor), low)
        high = top
        while (turn < 0) | ((low < high) & ((high > logit) | ~last) & (turn < MOST)):
            pivot = middle(low, high, turn)
            pivot = tl.where((turn == 0) & (logit >= low) & (logit < high), logit, pivot)
            pivot = tl.where(turn < 0, float("-inf"), pivot)
            weight, above, below = weigh_above(
                logits, i_row, stride, vocabulary, temperature, live, groups, alive, low, pivot, top, ~by_mass
            )
            is_enough = weight >= need
            # Without a token from `low` up to the pivot, the next one is the answer.
            next_high = tl.where(below >= low, below, above)
            next_low = tl.where(is_enough | (below < low), above, low)
            high = tl.where((turn < 0) | is_enough, high, next_high)
            low = tl.where(turn < 0, tl.maximum(low, floor), next_low)
            need = tl.where(turn < 0, weight * p, need)
            turn += 1
    return tl.maximum(low, floor)
