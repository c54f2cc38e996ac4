"""Where a benchmark's results are kept: benchmarks/results/NAME.json, with everything that is needed to doubt them."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
KEPT = HERE / "results"
FILLED = 20_261_121  # a number that no memory holds by chance
# 0.975 quantiles of Student's t by degrees of freedom.
T = {
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    11: 2.201,
    12: 2.179,
    13: 2.160,
    14: 2.145,
    15: 2.131,
}


def gpu() -> bool:
    """Say whether there is a GPU: a device that fills a tensor, which a stand-in for its driver does not."""
    import torch

    return torch.cuda.is_available() and int(torch.full((1,), FILLED, device="cuda")) == FILLED


def machine() -> dict[str, Any]:
    """Return what this machine is."""
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1),  # of the last minute: more than the cores says that others worked here
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def commit() -> str:
    """Return the commit that was measured; "+" says that tracked files differed from it."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
        return found.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return head + ("+" if changed else "")


def end_whole() -> None:
    """Let SIGTERM, which `timeout` sends, end this process as an exception would: what it started is ended too."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


@contextmanager
def child(command: Sequence[str | Path], shell: Mapping[str, str], *, pipe: bool = False) -> Iterator[Any]:
    """Run a process of this benchmark's own, with its output as lines if asked for; leaving early ends it.

    Raises:
        SystemExit: it failed.
    """
    end_whole()
    process = subprocess.Popen(command, env=shell, stdout=subprocess.PIPE if pipe else None, text=True)
    try:
        yield process
        if process.wait():
            raise SystemExit("the measurement ended early; what it said is above")
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def write(
    name: str,
    versions: Mapping[str, str],
    configuration: Any,
    measured: Sequence[Mapping[str, Any]],
    **more: Mapping[str, Any],
) -> Path:
    """Keep the results of one script; every repetition is in `measured`, and what follows from them in `more`."""
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{name}.json"
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "versions": dict(versions),
        "configuration": configuration,
        **more,
    }
    head = json.dumps(content, indent=1)[:-2]
    rows = ",\n  ".join(json.dumps(row) for row in measured)
    path.write_text(f'{head},\n "measured": [\n  {rows}\n ]\n}}\n')
    return path


def read(name: str) -> dict[str, Any] | None:
    """Return what was kept of a script, or None."""
    path = KEPT / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of the pairs' ratios with its 95 % interval: Student's t on the logarithms.

    Args:
        ours: one number per repetition, at least 3.
        theirs: of the same repetitions, in the same order.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.fmean(logs)
    half = T[len(logs) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of the pairs' differences with its 95 % interval, Student's t; arguments as in `ratio`."""
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.fmean(apart)
    half = T[len(apart) - 1] * statistics.stdev(apart) / math.sqrt(len(apart))
    return middle, middle - half, middle + half


def paired(ours: Sequence[int], theirs: Sequence[int]) -> tuple[float, float, float]:
    """Return the difference of two shares of the same things, each 0 or 1, with its 95 % interval (normal).

    Args:
        ours: one number per thing, at least 30.
        theirs: of the same things, in the same order.
    """
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.fmean(apart)
    half = 1.959964 * statistics.stdev(apart) / math.sqrt(len(apart))
    return middle, middle - half, middle + half


def wilson(count: int, of: int) -> tuple[float, float, float]:
    """Return a share with its 95 % interval (Wilson 1927).

    Args:
        count: how many of `of` were so.
        of: at least 1.
    """
    z = 1.959964
    share, weight = count / of, z * z / of
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / of + weight / (4 * of))
    return share, max(middle - half, 0.0), min(middle + half, 1.0)
