"""A mixture of two Weibull distributions, and the one that fits some numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Upstream's beginning and bounds: the share of the first, then its shape and scale, and those of the second.
BEGIN = (0.5, 1.0, 1.0, 1.5, 2.0)
LOWEST = (0.2, 0.01, 0.01, 0.01, 0.01)
HIGHEST = (0.8, math.inf, math.inf, math.inf, math.inf)
FEWEST = 4
# exp of more is no number
MOST = 700.0


@dataclass(frozen=True)
class Mixture:
    """Two Weibull distributions; the first one is that of larger mean, the good ones'.

    Args:
        share: of the first.
        shapes: k of each.
        scales: lambda of each.
    """

    share: float
    shapes: tuple[float, float]
    scales: tuple[float, float]

    def is_bad(self, value: float) -> bool:
        """Say whether a value > 0 rather belongs to the second one."""
        good, bad = _logs((self.share, self.shapes[0], self.scales[0], self.shapes[1], self.scales[1]), value)
        return good < bad


def mixture(share: float, k1: float, l1: float, k2: float, l2: float) -> Mixture:
    """Return a mixture with the distribution of larger mean first."""
    if l1 * math.gamma(1 + 1 / k1) < l2 * math.gamma(1 + 1 / k2):
        share, k1, l1, k2, l2 = 1 - share, k2, l2, k1, l1
    return Mixture(share, (k1, k2), (l1, l2))


def fit(values: Sequence[float]) -> Mixture | None:
    """Return a mixture at a maximum of the likelihood, the one that BFGS finds from upstream's beginning.

    The likelihood has several, and no largest one where values repeat. None: fewer than four values, all alike, or
    what is found is no number.

    Args:
        values: > 0; their order does not matter.
    """
    points = sorted(values)
    if len(points) < FEWEST or points[0] == points[-1]:
        return None
    try:
        return mixture(*_lowest(points))
    except (ValueError, OverflowError):
        return None


def _lowest(points: Sequence[float], rounds: int = 300) -> list[float]:
    """Return the parameters at a minimum of the loss, by BFGS within the bounds."""
    at, inverse = list(BEGIN), None
    value, slope = _loss(at, points)
    for _ in range(rounds):
        is_free = [
            not (x <= low and g > 0) and not (x >= high and g < 0)
            for x, g, low, high in zip(at, slope, LOWEST, HIGHEST, strict=True)
        ]
        pull = [g if free else 0.0 for g, free in zip(slope, is_free, strict=True)]
        length = math.hypot(*pull)
        if length < 1e-5:
            break
        way = [-g / max(length, 1.0) for g in pull]
        if inverse is not None:
            turned = [-_dot(row, pull) if free else 0.0 for row, free in zip(inverse, is_free, strict=True)]
            # what was learnt within other bounds may lead upwards
            way, inverse = (turned, inverse) if _dot(turned, pull) < 0 else (way, None)
        found = _downwards(at, way, value, slope, points)
        if found is None:
            break
        there, lower, slope_there = found
        inverse = _learnt(inverse, _minus(there, at), _minus(slope_there, slope))
        is_done = abs(value - lower) <= 2.2e-9 * max(abs(value), abs(lower), 1.0)
        at, value, slope = there, lower, slope_there
        if is_done:
            break
    return at


Found = tuple[list[float], float, list[float]]


def _downwards(
    at: Sequence[float], way: Sequence[float], value: float, slope: Sequence[float], points: Sequence[float]
) -> Found | None:
    """Return a place along the way, within the bounds, that is low enough; None: there is none."""
    length = 1.0
    while length > 1e-12:
        there = [min(max(x + length * d, low), high) for x, d, low, high in zip(at, way, LOWEST, HIGHEST, strict=True)]
        lower, slope_there = _loss(there, points)
        if lower <= value + 1e-4 * _dot(slope, _minus(there, at)):
            return there, lower, slope_there
        length /= 2
    return None


def _learnt(inverse: list[list[float]] | None, step: list[float], change: list[float]) -> list[list[float]] | None:
    """Return the inverse of the curvature with what a step has shown of it."""
    product = _dot(step, change)
    if product <= 1e-10:
        return inverse
    places = range(len(step))
    if inverse is None:
        scale = product / _dot(change, change)
        inverse = [[scale * (i == j) for j in places] for i in places]
    turned = [_dot(row, change) for row in inverse]
    more = (1 + _dot(change, turned) / product) / product
    return [
        [
            inverse[i][j] + more * step[i] * step[j] - (turned[i] * step[j] + step[i] * turned[j]) / product
            for j in places
        ]
        for i in places
    ]


def _loss(at: Sequence[float], points: Sequence[float]) -> tuple[float, list[float]]:
    """Return the negative log-likelihood and its slope."""
    share, k1, l1, k2, l2 = at
    total, slope = 0.0, [0.0] * 5
    for point in points:
        first, second = _logs(at, point)
        top = max(first, second)
        both = top + math.log(math.exp(first - top) + math.exp(second - top))
        total -= both
        p1, p2 = math.exp(first - both), math.exp(second - both)
        slope[0] -= p1 / share - p2 / (1 - share)
        for i, p, k, scale in ((1, p1, k1, l1), (3, p2, k2, l2)):
            ratio = math.log(point / scale)
            power = math.exp(min(k * ratio, MOST))
            slope[i] -= p * (1 / k + ratio - power * ratio)
            slope[i + 1] -= p * (k / scale) * (power - 1)
    return total, slope


def _logs(at: Sequence[float], point: float) -> tuple[float, float]:
    """Return the logarithms of both densities, each with its share."""
    share, k1, l1, k2, l2 = at
    return math.log(share) + _log_density(point, k1, l1), math.log(1 - share) + _log_density(point, k2, l2)


def _log_density(point: float, shape: float, scale: float) -> float:
    ratio = math.log(point / scale)
    return math.log(shape / scale) + (shape - 1) * ratio - math.exp(min(shape * ratio, MOST))


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _minus(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]
