"""Run parts: each in its environment, timed against its share, its tests counted."""

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ground import layers, places
from ground.parts import Part
from ground.progress import LOOK, SPEAK, child, last_line, say, show

# A part that takes this many times its share hangs, and is ended.
HOPELESS = 2.0
# Parts that run at a time: engines and tests take one core each.
LANES = 2
# Characters of a part's last line that are shown beside the others'.
WIDTH = 50
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
    """Run the commands of a part, all of them even if one fails, and show what they write."""
    return _end(_commands(part, None, root))


def run_all(parts: Sequence[Part], root: Path = places.ROOT, lanes: int = LANES) -> list[Result]:
    """Run parts, as many at a time as there are lanes; what a part wrote is shown when it has ended.

    Returns:
        One result per part, in their order.
    """
    if len(parts) == 1 or lanes == 1:
        return [run(part, root) for part in parts]
    waiting, running = list(parts), dict[str, _Running]()
    results: dict[str, Result] = {}
    spoken = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < lanes:
                part = waiting.pop(0)
                running[part.name] = _Running.start(part, root)
            time.sleep(LOOK)
            for name, one in list(running.items()):
                result = one.look()
                if result is not None:
                    results[name] = result
                    show("")
                    say(running.pop(name).log.read_text(errors="replace"))
            line = " · ".join(one.line() for one in running.values())
            show(line)
            if running and not sys.stdout.isatty() and time.monotonic() - spoken >= SPEAK:
                spoken = time.monotonic()
                say(line)
    finally:
        for one in running.values():
            one.steps.close()
    return [results[part.name] for part in parts]


@dataclass(frozen=True)
class _Running:
    """A part under way."""

    name: str
    started: float
    log: Path
    steps: Generator[None, None, Result]

    @classmethod
    def start(cls, part: Part, root: Path) -> "_Running":
        log = root / ".midstep" / "results" / f"{part.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        return cls(part.name, time.monotonic(), log, _commands(part, log, root))

    def look(self) -> Result | None:
        """Go on, and return the result if there is one."""
        try:
            next(self.steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        return None

    def line(self) -> str:
        return f"{self.name} {time.monotonic() - self.started:.0f} s {last_line(self.log)[:WIDTH]}"


def _end(steps: Generator[None, None, Result]) -> Result:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        time.sleep(LOOK)


def _commands(part: Part, log: Path | None, root: Path) -> Generator[None, None, Result]:
    """Run the commands of a part, and yield while they run; their output goes to the log, if there is one."""
    started = time.monotonic()
    passed = failed = skipped = 0
    faults = []
    for number, command in enumerate(part.commands):
        title = f"\n== {part.name}: {' '.join(command[:2])}"
        report = root / ".midstep" / "results" / f"{part.name}-{number}.xml"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        deadline = started + part.seconds * HOPELESS
        if log is None:
            say(title)
            fault = yield from _command(part, command, report, deadline, root, None)
        else:
            with log.open("a") as output:
                print(title, file=output, flush=True)
                fault = yield from _command(part, command, report, deadline, root, output.fileno())
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
    """Write what became of a session, with the commit it belongs to."""
    lines = {"commit": commit(root), "parts": [asdict(result) for result in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lines, indent=1) + "\n")


def commit(root: Path = places.ROOT) -> str:
    """Return the commit of a checkout; "+" marks a tree with changes of its own, but for results."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        return found.stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".", ":!tests/results") else "")


def table(results: list[Result]) -> list[str]:
    """Return the lines that end a session: the time per part, what is wrong beside the tests, and the closing line."""
    width = max(len(result.name) for result in results)
    times = [f"{result.name:<{width}}  {result.seconds:5.0f} s of {result.share:5.0f} s" for result in results]
    faults = [f"{result.name}: {fault}" for result in results for fault in result.faults]
    passed, skipped = sum(result.passed for result in results), sum(result.skipped for result in results)
    failed = sum(result.failed for result in results) + len(faults)
    return ["", *times, *faults, f"{passed} passed, {failed} failed, {skipped} skipped"]


def _command(
    part: Part, command: tuple[str, ...], report: Path, deadline: float, root: Path, output: int | None
) -> Generator[None, None, str]:
    """Run one command, yield while it runs, and return what is wrong with it, or nothing."""
    module, *arguments = [word for argument in command for word in _expand(argument, root)]
    if module == "pytest":
        arguments.append(f"--junitxml={report}")
    python = layers.python(part.environment, root)
    variables = layers.variables(part.environment, root) | part.variables
    try:
        with child([python, "-m", module, *arguments], variables, root, output) as process:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(module, deadline)
                yield
    except subprocess.TimeoutExpired:
        return f"{module} was ended: it hung"
    if module == "pytest" and process.returncode == NO_TESTS:
        return "pytest found no test to run"
    return f"{module} ended with status {process.returncode}" if process.returncode else ""


def _expand(argument: str, root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.glob(argument))] if "*" in argument else [argument]
