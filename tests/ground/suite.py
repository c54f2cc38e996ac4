"""What `./test` does."""

import argparse
import re
import time
from pathlib import Path

from ground import environments, parts, places, progress, session
from ground.prepare import prepare
from ground.progress import GroundError, say


def main(arguments: list[str]) -> int:
    """Make the ground, run the parts, print what became of them, and return the exit status."""
    options = _parser().parse_args(arguments)
    kept = places.ROOT / "tests" / "results" / "long.json" if options.long else None
    return progress.in_one_line(lambda: _run(_chosen(options), kept))


def _run(chosen: list[parts.Part], kept: Path | None) -> int:
    needed = {name for part in chosen for name in (part.environment, *part.borrows)}
    names = [name for name in environments.RECIPES if name in needed]
    results = [ground(names)]
    began = time.monotonic()
    results += session.run_all(chosen)
    together = time.monotonic() - began
    if kept is not None:
        session.record(results, kept)
    lines = session.table(results)
    if len(chosen) > 1:
        lines.insert(-1, f"{together:.0f} s together: {session.LANES} parts run at a time")
    say("\n".join(lines))
    return int(any(result.failed or result.faults for result in results))


def ground(names: list[str]) -> session.Result:
    """Make the environments and the models, where they are not there yet."""
    started = time.monotonic()
    prepare(names)
    seconds, share = time.monotonic() - started, parts.GROUND_SECONDS
    late = (f"it took {seconds:.0f} s, beyond its share of {share:.0f} s",) if seconds > share else ()
    return session.Result("ground", seconds, share, faults=late)


def _chosen(options: argparse.Namespace) -> list[parts.Part]:
    if options.methods:
        return [of_method(name) for name in options.methods]
    if options.part:
        return [part for part in parts.PARTS if part.name == options.part]
    return list(parts.LONG_PARTS if options.long else parts.PARTS)


def of_method(name: str) -> parts.Part:
    """Return the part with the method's own tests.

    Raises: GroundError if there are none.
    """
    files = [str(file.relative_to(places.ROOT)) for file in places.ROOT.glob(f"tests/**/test_{name}.py")]
    laws = [str(file.relative_to(places.ROOT)) for file in places.ROOT.glob("tests/**/test_laws.py")]
    if not files:
        known = sorted(file.stem.removeprefix("test_") for file in places.ROOT.glob("tests/**/test_*.py"))
        raise GroundError(f"no tests/**/test_{name}.py; there are: {', '.join(known)}")
    sources = [file.read_text() for file in places.ROOT.glob(f"*/**/midstep_{name}/__init__.py")]
    methods = [method for source in sources for method in re.findall(r'^    name = "(\w+)"$', source, re.M)]
    return parts.of_method(name, methods, files, laws)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./test", description="Make what the tests need, and run them.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("methods", nargs="*", default=[], metavar="METHOD", help="only this method's tests, no engine")
    which.add_argument("--part", choices=[part.name for part in parts.PARTS], help="only this part")
    which.add_argument("--long", action="store_true", help="only the tests that take too long for every change")
    return parser
