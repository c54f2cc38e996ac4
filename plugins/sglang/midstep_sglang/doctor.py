"""What `midstep doctor` says of SGLang: its version, and whether every seam is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version

import midstep
from midstep.command.findings import Finding


def findings() -> Iterator[Finding]:
    """Look at the SGLang of this environment; imports it."""
    from . import enabling
    from .gate import Gate

    found, tested = version("sglang"), ", ".join(enabling.TESTED)
    about = f"SGLang {found} with midstep-sglang {version('midstep-sglang')}"
    yield Finding(f"{about}: {'tested' if found in enabling.TESTED else f'not tested together; tested: {tested}'}")
    seams, missing = enabling.probed(Gate(midstep.Configuration(), None))
    for name in missing:
        yield Finding(f"seam {name} is missing", f"pip install 'sglang=={tested}', or a newer midstep-sglang")
    if not missing:
        names = ", ".join(".".join(seam.target.split(".")[-2:]) for seam in seams)
        yield Finding(f"all {len(seams)} seams of SGLang are there: {names}")
    allowed = os.environ.get("SGLANG_PLUGINS")
    if allowed and "midstep" not in [name.strip() for name in allowed.split(",")]:
        yield Finding(f"SGLANG_PLUGINS={allowed} keeps midstep out of SGLang", "add midstep to it, or unset it")
