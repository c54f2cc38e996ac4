"""What every table is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def unique(rows: Iterable[Row], name: str) -> list[Any]:
    """Return the values of a field in the order in which they come."""
    return list(dict.fromkeys(row[name] for row in rows))


def configuration(kept: Row) -> str:
    """Return a line that says where and with what something was measured."""
    machine, versions = kept["machine"], kept["versions"]
    with_ = ", ".join(f"{name} {number}" for name, number in versions.items())
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB"
    where += f", load {machine['load']}" if "load" in machine else ""
    return f"{kept['date']}, commit {kept['commit']}; {where}; {with_}."
