"""The running of commands and the counting of parts."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ground import layers, progress, session, suite
from ground.parts import Part
from ground.progress import GroundError

FOUR_TESTS = """
import pytest

def test_a():
    pass

def test_b():
    assert 0

def test_c(missing):
    pass

def test_d():
    pytest.skip("no")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout whose environment is this Python."""
    interpreter = layers.python("torch", tmp_path)
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    return tmp_path


def test_a_part_beyond_its_share_fails(root: Path) -> None:
    """Slow is a fault, and the line says by how much."""
    part = Part("slow", 0.3, (("timeit", "-n1", "-r1", "import time; time.sleep(0.35)"),))
    result = session.run(part, root)
    assert result.faults == (f"it took {result.seconds:.0f} s, beyond its share of 0 s",)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_a_part_that_hangs_is_ended(root: Path, handler: Any) -> None:
    """At twice its share, and the next commands of the part do not hang either; in a shell's background too."""
    sleep = ("timeit", "-n1", "-r1", "import time; time.sleep(60)")
    before = signal.signal(signal.SIGINT, handler)
    try:
        result = session.run(Part("hung", 0.3, (sleep, sleep)), root)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.seconds < 20
    assert result.faults[:2] == ("timeit was ended: it hung",) * 2


def test_two_parts_run_at_a_time(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Never three, and what each wrote is shown in one piece, the results in the parts' order."""
    code = "import sys, time; print(sys.argv[1], time.monotonic()); time.sleep(1); print(sys.argv[1], time.monotonic())"
    (root / "talk.py").write_text(code)
    names = ("one", "two", "three")
    results = session.run_all([Part(name, 60, (("talk", name),)) for name in names], root, lanes=2)
    assert [result.name for result in results] == list(names)
    shown = capsys.readouterr().out
    times = {}
    for name in names:
        found = re.search(rf"== {name}: talk {name}\n{name} (\S+)\n{name} (\S+)\n", shown)
        assert found is not None, shown
        times[name] = float(found[1]), float(found[2])
    assert times["two"][0] < times["one"][1]
    assert times["three"][0] > min(times["one"][1], times["two"][1])


def test_an_interrupt_ends_all_that_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part outlives the command."""
    (root / "sleep.py").write_text("import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)")
    parts = [Part(name, 60, (("sleep",),)) for name in ("one", "two")]
    logs = [root / ".midstep" / "results" / f"{part.name}.log" for part in parts]

    pids: list[str] = []

    def interrupt(line: str) -> None:
        wrote = [log.read_text().split()[-1] for log in logs if log.exists()]
        if len(wrote) == 2 and all(map(str.isdigit, wrote)):
            pids.extend(wrote)
            raise KeyboardInterrupt

    monkeypatch.setattr(session, "show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.run_all(parts, root, lanes=2)
    assert len(pids) == 2
    assert not any(Path("/proc", pid).exists() for pid in pids)


def test_tests_are_counted_and_their_failures_are_no_fault(root: Path) -> None:
    """One passed, one failed, one error, one skipped."""
    (root / "test_some.py").write_text(FOUR_TESTS)
    result = session.run(Part("some", 60, (("pytest", "-q", "test_*.py"),)), root)
    assert (result.passed, result.failed, result.skipped, result.faults) == (1, 2, 1, ())
    assert session.table([result])[-1] == "1 passed, 2 failed, 1 skipped"


def test_a_part_without_tests_fails(root: Path) -> None:
    """A renamed mark must not turn a part green; and what is no test is counted as one failure."""
    (root / "test_some.py").touch()
    result = session.run(Part("none", 60, (("pytest", "-q", "test_some.py"),)), root)
    assert result.faults == ("pytest found no test to run",)
    assert session.table([result])[-1] == "0 passed, 1 failed, 0 skipped"


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    """A typing error is no green run."""
    with pytest.raises(GroundError, match=r"no tests/\*\*/test_nosuch\.py; there are: .*ground"):
        suite.of_method("nosuch")


def test_what_a_command_leaves_running_is_ended(tmp_path: Path) -> None:
    """An engine's worker does not outlive its test."""
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid)"
    with progress.child(
        [sys.executable, "-c", script], output=(out := (tmp_path / "pid").open("wb")).fileno()
    ) as child:
        child.wait()
    out.close()
    left = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    deadline = time.monotonic() + 5
    while left.exists() and left.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Control-C is no traceback."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert progress.in_one_line(interrupted) == 130
    assert capsys.readouterr().out == "\nmidstep: interrupted; the same command goes on from here\n"


def test_a_long_sessions_result_names_its_commit(tmp_path: Path) -> None:
    """A file with the commit, marked where the tree has changes of its own, and a line per part."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    for expected in (head, head + "+"):
        session.record([session.Result("one", 1.5, 9.0, passed=3)], tmp_path / ".git" / "long.json", tmp_path)
        written = json.loads((tmp_path / ".git" / "long.json").read_text())
        assert (written["commit"], written["parts"][0]["passed"]) == (expected, 3)
        (tmp_path / "new").touch()
