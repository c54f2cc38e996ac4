"""What `midstep doctor` says of vLLM: its version, and whether every seam is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version

from midstep.command.findings import Finding

from . import enabling, seams


def findings() -> Iterator[Finding]:
    """Look at the vLLM of this environment; imports it."""
    found = version("vllm")
    about = f"vLLM {found} with midstep-vllm {version('midstep-vllm')}"
    tested = found.partition("+")[0] == seams.TESTED
    yield Finding(f"{about}: {'tested' if tested else f'not tested together; tested: {seams.TESTED}'}")
    untested = seams.untested()
    if untested is not None:
        yield Finding(untested, f"pip install 'vllm=={seams.TESTED}', or a newer midstep-vllm")
    if os.environ.get("MIDSTEP") != "off":
        yield _seams()
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "midstep" not in allowed.split(","):
        yield Finding(f"VLLM_PLUGINS={allowed} keeps midstep out of vLLM", "add midstep to it, or unset it")


def _seams() -> Finding:
    """Wrap the seams in this process, as vLLM does in each of its own, and say what came of it."""
    enabling.install()
    lost = seams.missing()
    if lost is not None:
        return Finding(lost, f"install vLLM {seams.TESTED}, or a newer midstep-vllm")
    names = ", ".join(name.partition(":")[2] for name in seams.WRAPPED)
    return Finding(f"all {len(seams.WRAPPED)} seams of vLLM are wrapped: {names}; {len(seams.USED)} others are there")
