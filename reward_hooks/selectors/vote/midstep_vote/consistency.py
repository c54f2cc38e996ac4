"""Perplexity consistency with reasoning pruning (RPC): how likely a text was counts, and unlikely ones do not.

    p_i = exp(mean_t log p(token t of text i))          W(a) = sum of p_i over the distinct texts that come to a
    pruned: p_i < mean(p) and P(good | p_i) < P(bad | p_i), by a mixture of two Weibull distributions fitted to p

Zhou et al. 2025 (NeurIPS 2025); code WNJXYK/RPC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .weibull import Mixture, fit

LEAST = 1e-12


def weighed(classes: Sequence[int | None], texts: Sequence[str], probabilities: Sequence[float]) -> dict[int, float]:
    """Return each answer's share of all that speaks for one; texts without an answer (None) are not looked at."""
    voting = [i for i, number in enumerate(classes) if number is not None]
    mine = [max(probabilities[i], LEAST) for i in voting]
    out = pruned(mine, fit(mine))
    numbers = [number for number in classes if number is not None]
    return totals(numbers, [texts[i] for i in voting], mine, out)


def pruned(probabilities: Sequence[float], mixture: Mixture | None) -> list[bool]:
    """Say of each text whether it is left out; without a mixture none is."""
    mean = math.fsum(probabilities) / max(len(probabilities), 1)
    return [mixture is not None and p < mean and mixture.is_bad(p) for p in probabilities]


def totals(
    classes: Sequence[int], texts: Sequence[str], probabilities: Sequence[float], out: Sequence[bool]
) -> dict[int, float]:
    """Return what speaks for each answer, of all of it; the same text counts once, one that is left out not at all."""
    distinct: dict[int, set[tuple[str, float]]] = {number: set() for number in classes}
    for number, text, p, is_out in zip(classes, texts, probabilities, out, strict=True):
        if not is_out:
            distinct[number].add((text, p))
    sums = {number: math.fsum(p for _, p in found) for number, found in distinct.items()}
    whole = math.fsum(sums.values())
    return {number: total / whole for number, total in sums.items()}
