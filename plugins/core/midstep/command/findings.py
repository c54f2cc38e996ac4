"""What a command found out: one line each, and where something is broken, the line that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line.

    Args:
        text: what was found.
        mend: what mends it; None where nothing is broken.
    """

    text: str
    mend: str | None = None


def show(findings: Iterable[Finding]) -> int:
    """Print each as it comes, and return the exit status: 1 where something is broken."""
    broken = 0
    for finding in findings:
        if finding.mend is None:
            print(f"ok      {finding.text}", flush=True)
        else:
            broken += 1
            print(f"BROKEN  {finding.text}\n        mend: {finding.mend}", flush=True)
    if broken:
        print(f"{broken} broken")
    return 1 if broken else 0


def line(error: BaseException) -> str:
    """Return an exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
