"""What a method's README must have: seven sections, and the table of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import describe
from ..methods import Method
from .findings import Finding

SECTIONS = ("What it does", "Formula", "Parameters", "Source", "Cost (measured)", "Limits", "Example")


def table(method: type[Method]) -> str:
    """Return the parameter table of a method's README."""
    lines = ["| parameter | what it sets |", "|---|---|"]
    for name, field in method.Params.model_fields.items():
        lines.append(f"| `{describe(name, field)}` | {field.description} |")
    return "\n".join(lines)


def compared(readme: Path, methods: Iterable[type[Method]]) -> Iterator[Finding]:
    """Say whether a README has its sections, and each method's table."""
    text = readme.read_text(encoding="utf-8")
    found = tuple(re.findall(r"^## (.+)$", text, re.M))
    about = f"{readme}: its sections"
    yield Finding(about, None if found == SECTIONS else f"they must be, in this order: {', '.join(SECTIONS)}")
    for method in methods:
        about, wanted = f"{readme}: the parameters of {method.name}", table(method)
        yield Finding(about, None if wanted in text else f"write this table under 'Parameters':\n{wanted}")
