"""What `midstep doctor` says of vLLM: its version, and whether every seam is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version

from midstep.command.findings import Finding

from . import seams


def findings() -> Iterator[Finding]:
    """Look at the vLLM of this environment; imports it."""
    found = version("vllm")
    about = f"vLLM {found} with midstep-vllm {version('midstep-vllm')}"
    tested = found.partition("+")[0] == seams.TESTED
    yield Finding(f"{about}: {'tested' if tested else f'not tested together; tested: {seams.TESTED}'}")
    untested = seams.untested()
    if untested is not None:
        yield Finding(untested, f"pip install 'vllm=={seams.TESTED}', or a newer midstep-vllm")
    names = (*seams.WRAPPED, *seams.USED, seams.ENDPOINTS)
    lost = [name for name in names if not seams.exists(name)]
    for name in lost:
        yield Finding(f"seam {name} is missing", f"pip install 'vllm=={seams.TESTED}', or a newer midstep-vllm")
    if not lost:
        yield Finding(
            f"all {len(names)} seams of vLLM are there: {', '.join(name.partition(':')[2] for name in names)}"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "midstep" not in allowed.split(","):
        yield Finding(f"VLLM_PLUGINS={allowed} keeps midstep out of vLLM", "add midstep to it, or unset it")
