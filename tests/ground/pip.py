"""Install with pip, and say in one line why it could not."""

import re
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from ground.progress import GroundError, run

# Where CPU builds of torch are published; PyPI's for Linux are CUDA builds, 3 GB larger.
TORCH_FOR_CPU = "https://download.pytorch.org/whl/cpu"
UNREACHABLE = re.compile(
    r"Failed to establish a new connection|Temporary failure in name resolution|Max retries exceeded"
    r"|NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|Network is unreachable"
)


def pip(
    python: Path, what: str, arguments: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
) -> None:
    """Run `python -m pip` with the arguments.

    Raises: GroundError with pip's reason and the log's path.
    """
    options = ["--no-input", "--disable-pip-version-check"]
    wrote = run(what, [python, "-m", "pip", *arguments, *options], log, env)
    if wrote is not None:
        raise GroundError(f"{what} failed: {reason(wrote)} (all of it: {log})")


def reason(wrote: str) -> str:
    """Return the one line of pip's output that says why it failed."""
    lines = [line.strip() for line in wrote.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|error):", line)]
    last = (errors or lines or ["it wrote nothing"])[-1]
    if UNREACHABLE.search(wrote):
        return f"no network: pip cannot reach its package index; {last}"
    return last


def cpu_index() -> list[str]:
    """Return pip's options for torch's own index if it can be reached; else pip itself must know a CPU build."""
    try:
        urllib.request.urlopen(f"{TORCH_FOR_CPU}/torch/", timeout=5).close()
    except OSError:
        return []
    return ["--extra-index-url", TORCH_FOR_CPU]
