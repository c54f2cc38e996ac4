"""Install with pip, and say in one line why it could not."""

import re
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from ground.progress import run

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
    run(what, [python, "-m", "pip", *arguments, *options], log, env, reason=reason)


def reason(wrote: str) -> str:
    """Return in one line why pip failed: its own last error, or else the package at hand and the exception."""
    lines = [line.strip() for line in wrote.splitlines() if line.strip()] or ["pip wrote nothing"]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    exceptions = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    packages = [line for line in lines if re.match(r"(Collecting|Obtaining|Processing) ", line)]
    line = errors[-1] if errors else ": ".join([*packages[-1:], (exceptions or lines)[-1]])
    return f"no network: pip cannot reach its package index; {line}" if UNREACHABLE.search(wrote) else line


def cpu_index() -> list[str]:
    """Return pip's options for torch's own index if it can be reached; else pip itself must know a CPU build."""
    try:
        urllib.request.urlopen(f"{TORCH_FOR_CPU}/torch/", timeout=5).close()
    except OSError:
        return []
    return ["--extra-index-url", TORCH_FOR_CPU]
