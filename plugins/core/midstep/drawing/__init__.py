"""A search's trace as one HTML page, which needs nothing beside it, and as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

CUT = 60


def is_search(trace: Any) -> bool:
    """Say whether something is the trace of a search."""
    return isinstance(trace, dict) and isinstance(trace.get("nodes"), dict) and "search" in trace


def page(trace: Mapping[str, Any]) -> str:
    """Return the page: the tree with its scores, what was pruned and why, tokens per branch, the chosen answer."""
    # a text of the model that ends the script must stay a text
    data = json.dumps(trace).replace("<", "\\u003c")
    # a mark in the title would be taken for the page's
    title = escape(f"{trace['search']}: {trace.get('question', '')[:CUT]}").replace("@", "&#64;")
    filled = {"TITLE": title, "TRACE": data}
    filled |= {"STYLE": _read("style.css"), "SCRIPT": _read("tree.js") + _read("picture.js") + _read("page.js")}
    # the trace last: it may hold what looks like a mark
    text = _read("page.html")
    for mark in ("STYLE", "SCRIPT", "TITLE", "TRACE"):
        text = text.replace(f"@@{mark}@@", filled[mark], 1)
    return text


def lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tree for a terminal: value, fate, tokens of the step, and how its text begins."""
    spent = trace["spent"]
    yield f"{trace['search']}: {spent['engine']} tokens of the engine, {spent['reward']} of the reward"
    for address, node in trace["nodes"].items():
        chosen = trace.get("chosen")
        mark = "*" if chosen is not None and f"{chosen}.".startswith(f"{address}.") else " "
        value = "    -" if node["value"] is None else f"{node['value']:5.3f}"
        text = " ".join(node["text"].split())
        short = text if len(text) <= CUT else f"{text[: CUT - 1]}…"
        why = f" ({node['why']})" if node["why"] else ""
        yield f"{mark} {value} {'  ' * address.count('.')}{address}: {node['fate']}{why}, +{node['step']}: {short}"


def _read(name: str) -> str:
    return (files("midstep.drawing") / name).read_text(encoding="utf-8")
