"""Draws accuracy against tokens as an SVG, a panel for each reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from accuracy import GREEDY, MAJORITY, ONE, REWARDS, WIDTHS, counted, searches
from results import wilson

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
GREY, INK = "#777777", "#222222"
WIDE, HIGH, LEFT, TOP, BETWEEN, LEGEND = 360, 300, 60, 40, 30, 190
ASIDE = 3.0  # between the points of two searches that took the same tokens
Point = tuple[float, int, int]  # tokens, right answers, of so many


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        left: of its area.
        least, most: tokens at its edges.
    """

    left: float
    least: float
    most: float

    def x(self, tokens: float) -> float:
        """Return where so many tokens are, on a logarithmic axis."""
        return self.left + WIDE * math.log(tokens / self.least) / math.log(self.most / self.least)

    def y(self, share: float) -> float:
        """Return where a share is."""
        return TOP + HIGH * (1 - share)


def accuracy(kept: Mapping[str, Any]) -> str:
    """Return the picture of what `accuracy.py` kept."""
    rows = kept["measured"]
    series = {(name, reward): _points(rows, name, reward) for reward in REWARDS for name in searches(WIDTHS[0])}
    majority = [_point(rows, f"{ONE} 1 none"), *(_point(rows, f"{MAJORITY} {width} none") for width in WIDTHS)]
    tokens = [point[0] for points in [majority, *series.values()] for point in points]
    least, most = min(tokens) / 1.2, max(tokens) * 1.2
    parts = []
    for number, reward in enumerate(REWARDS):
        panel = Panel(LEFT + number * (WIDE + BETWEEN), least, most)
        parts += _axes(panel, f"{reward} reward", first=number == 0)
        greedy = _point(rows, f"{GREEDY} 1 none")
        level = panel.y(greedy[1] / greedy[2])
        parts.append(_line(panel.left, level, panel.left + WIDE, level, GREY, 'stroke-dasharray="2 4"'))
        parts += _curve(panel, majority, GREY, dashed=True)
        for place, (name, colour) in enumerate(zip(searches(WIDTHS[0]), COLOURS, strict=True)):
            parts += _curve(panel, series[name, reward], colour, aside=ASIDE * (place - 2))
    right = LEFT + len(REWARDS) * WIDE + (len(REWARDS) - 1) * BETWEEN
    parts += _legend(right + 20)
    width, height = right + LEGEND, TOP + HIGH + 60
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    title = "<title>Share of right answers against tokens, by search</title>"
    back = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([f'{head} font-size="12" fill="{INK}">', title, back, *parts, "</svg>\n"])


def _point(rows: Sequence[Mapping[str, Any]], key: str) -> Point:
    right, engine, reward = counted(rows, key)
    return engine + reward, right, len(rows)


def _points(rows: Sequence[Mapping[str, Any]], name: str, reward: str) -> list[Point]:
    return [_point(rows, f"{name} {width} {reward}") for width in WIDTHS]


def _axes(panel: Panel, title: str, *, first: bool) -> list[str]:
    parts = [_text(panel.left + WIDE / 2, TOP - 14, title, "middle")]
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = panel.y(share)
        parts.append(_line(panel.left, y, panel.left + WIDE, y, "#dddddd"))
        if first:
            parts.append(_text(panel.left - 8, y + 4, f"{share:.0%}".replace("%", " %"), "end"))
    power = 2 ** math.ceil(math.log2(panel.least))
    while power <= panel.most:
        x = panel.x(power)
        parts.append(_line(x, TOP + HIGH, x, TOP + HIGH + 5, INK))
        parts.append(_text(x, TOP + HIGH + 20, f"{power}", "middle"))
        power *= 2
    parts.append(_line(panel.left, TOP + HIGH, panel.left + WIDE, TOP + HIGH, INK))
    parts.append(_text(panel.left + WIDE / 2, TOP + HIGH + 42, "tokens of a task, engine and reward", "middle"))
    return parts


def _curve(
    panel: Panel, points: Sequence[Point], colour: str, *, dashed: bool = False, aside: float = 0.0
) -> list[str]:
    places = [(panel.x(tokens) + aside, panel.y(right / of)) for tokens, right, of in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    style = ' stroke-dasharray="6 4"' if dashed else ""
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{style}/>']
    for (x, y), (_, right, of) in zip(places, points, strict=True):
        _, low, high = wilson(right, of)
        parts.append(_line(x, panel.y(low), x, panel.y(high), colour, 'stroke-opacity="0.3"'))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>')
    return parts


def _legend(x: float) -> list[str]:
    parts = []
    entries = [*zip(searches(WIDTHS[0]), COLOURS, strict=True), ("majority, no reward", GREY), ("greedy", GREY)]
    for number, (name, colour) in enumerate(entries):
        y = TOP + 14 + 20 * number
        style = {"majority, no reward": 'stroke-dasharray="6 4"', "greedy": 'stroke-dasharray="2 4"'}.get(name, "")
        parts += [_line(x, y, x + 24, y, colour, f'stroke-width="1.8" {style}'), _text(x + 32, y + 4, name, "start")]
    told = ("points: widths " + ", ".join(map(str, WIDTHS)), "bars: 95 % intervals")
    start = TOP + 14 + 20 * len(entries) + 10
    return parts + [_text(x, start + 18 * i, line, "start") for i, line in enumerate(told)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, style: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {style}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
