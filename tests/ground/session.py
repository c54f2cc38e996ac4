"""Run parts: each in its environment, timed against its share, its tests counted."""

import json
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass
from pathlib import Path

from ground import layers, places
from ground.parts import Part
from ground.progress import child, say

# A part that takes this many times its share hangs, and is ended.
HOPELESS = 2.0
# pytest's exit status when it found nothing to run.
NO_TESTS = 5


@dataclass(frozen=True)
class Result:
    """What became of a part."""

    name: str
    seconds: float
    share: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    # Why it failed, other than by its tests.
    faults: tuple[str, ...] = ()


def run(part: Part, root: Path = places.ROOT) -> Result:
    """Run the commands of a part, all of them even if one fails."""
    started = time.monotonic()
    passed = failed = skipped = 0
    faults = []
    for number, command in enumerate(part.commands):
        say(f"\n== {part.name}: {' '.join(command[:2])}")
        report = root / ".midstep" / "results" / f"{part.name}-{number}.xml"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        fault = _run(part, command, report, started + part.seconds * HOPELESS, root)
        counted = count(report)
        passed, failed, skipped = passed + counted[0], failed + counted[1], skipped + counted[2]
        if fault and not counted[1]:
            faults.append(fault)
    seconds = time.monotonic() - started
    if seconds > part.seconds:
        faults.append(f"it took {seconds:.0f} s, beyond its share of {part.seconds:.0f} s")
    return Result(part.name, seconds, part.seconds, passed, failed, skipped, tuple(faults))


def count(report: Path) -> tuple[int, int, int]:
    """Return how many tests passed, failed (errors too) and were skipped, by pytest's XML; zeros if there is none."""
    try:
        suites = list(ElementTree.parse(report).iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return 0, 0, 0
    tests, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    return tests - failures - errors - skipped, failures + errors, skipped


def record(results: list[Result], path: Path, root: Path = places.ROOT) -> None:
    """Write what became of a session, with the commit it belongs to; "+" marks a tree with changes of its own."""
    git = ["git", "-C", str(root)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    lines = {"commit": commit + ("+" if changed else ""), "parts": [asdict(result) for result in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lines, indent=1) + "\n")


def table(results: list[Result]) -> list[str]:
    """Return the lines that end a session: the time per part, what is wrong beside the tests, and the closing line."""
    width = max(len(result.name) for result in results)
    times = [f"{result.name:<{width}}  {result.seconds:5.0f} s of {result.share:5.0f} s" for result in results]
    faults = [f"{result.name}: {fault}" for result in results for fault in result.faults]
    passed, skipped = sum(result.passed for result in results), sum(result.skipped for result in results)
    failed = sum(result.failed for result in results) + len(faults)
    return ["", *times, *faults, f"{passed} passed, {failed} failed, {skipped} skipped"]


def _run(part: Part, command: tuple[str, ...], report: Path, deadline: float, root: Path) -> str:
    """Run one command and return what is wrong with it, or nothing."""
    module, *arguments = [word for argument in command for word in _expand(argument, root)]
    if module == "pytest":
        arguments.append(f"--junitxml={report}")
    python = layers.python(part.environment, root)
    variables = layers.variables(part.environment, root) | part.variables
    try:
        with child([python, "-m", module, *arguments], variables, root) as process:
            code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"{module} was ended: it hung"
    if module == "pytest" and code == NO_TESTS:
        return "pytest found no test to run"
    return f"{module} ended with status {code}" if code else ""


def _expand(argument: str, root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.glob(argument))] if "*" in argument else [argument]
