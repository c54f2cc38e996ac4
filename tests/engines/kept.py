"""midstep-eager's answers to the tests' cases: each is worked out when a test first asks for it, and kept.

They lie in .midstep/expected, one file per case; its name is a digest of the case, the model, the libraries, and every
source that the answer depends on. Two parts of `./test` that ask for the same answer at once work it out once.

`python -m engines.kept` works out what it is sent, for those who cannot load a network themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engines import scenario
from engines.scenario import ROOT, Case, Expected

import midstep

KEPT = ROOT / ".midstep" / "expected"
OURS = ("samplers/*/midstep_*", "logits_processors/*/midstep_*", "reward_hooks/*/*/midstep_*")
PACKAGES = ("plugins/core/midstep", "plugins/eager/midstep_eager", *OURS, "tests/engines/faulty/midstep_*")
METHODS = frozenset(path.parent.name for pattern in OURS for path in ROOT.glob(f"{pattern}/__init__.py"))
ALWAYS = ("midstep", "midstep_eager")
LIBRARIES = ("torch", "transformers")
# Of a case, what changes no answer of midstep-eager.
NEUTRAL = ("name", "stream")

WorkOut = Callable[[str, Case], list[Expected]]


class Answers(Mapping[str, list[Expected]]):
    """midstep-eager's answers by the case's name.

    Args:
        model: a model's folder.
        work_out: what answers a case that is not kept; this process by default.
    """

    def __init__(self, model: str, cases: Iterable[Case], work_out: WorkOut = scenario.answer) -> None:
        self.model, self.work_out = model, work_out
        self.cases = {case.name: case for case in cases}
        self.read: dict[str, list[Expected]] = {}

    def __getitem__(self, name: str) -> list[Expected]:
        """Return the answers to one case, one per sample."""
        if name not in self.read:
            self.read[name] = keep(self.model, self.cases[name], self.work_out)
        return self.read[name]

    def __iter__(self) -> Iterator[str]:
        """Return the cases' names."""
        return iter(self.cases)

    def __len__(self) -> int:
        """Return how many cases there are."""
        return len(self.cases)


def keep(model: str, case: Case, work_out: WorkOut) -> list[Expected]:
    """Return the answers to a case; work them out unless they are kept."""
    name, folder = key(model, case), KEPT
    path = folder / f"{name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX, 1, int(name[:12], 16))  # a byte of its own: other cases do not wait
            if not path.exists():
                found = work_out(model, case)
                part = path.with_suffix(f".{os.getpid()}")
                part.write_text(json.dumps([asdict(one) for one in found]))
                part.replace(path)
    return [Expected(**{**one, "ids": tuple(one["ids"])}) for one in json.loads(path.read_text())]


def once(name: str, model: str, sources: Iterable[Path], make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Return a folder, and the plain data that `make` returned when it filled it; both are made once and kept.

    Args:
        sources: what they depend on, beside the model and every package of ours.
    """
    versions = [version(library) for library in LIBRARIES]
    parts = [model, *versions, *map(digest, sorted(packages())), *(path.read_text() for path in sources)]
    folder = KEPT / f"{name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]}"
    found = folder / "found.json"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # two parts of `./test` ask for it at once
        if not found.exists():
            part = found.with_suffix(".part")
            part.write_text(json.dumps(make(folder)))
            part.replace(found)
    return folder, json.loads(found.read_text())


def key(model: str, case: Case) -> str:
    """Return the digest of all that the answers to a case depend on."""
    about = {name: value for name, value in asdict(case).items() if name not in NEUTRAL}
    methods = (midstep.catalogue().find(name) for name in case.methods or {})
    own = {method.__module__.partition(".")[0] for method in methods}
    parts = [model, about, {name: version(name) for name in LIBRARIES}, _asking(), *map(digest, sorted(reach(own)))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


@cache
def _asking() -> str:
    """Return the source of what asks midstep-eager."""
    asks = (scenario.answer, scenario.load, scenario.prompt_ids, scenario.grammar, Case.entry)
    return "".join(map(inspect.getsource, asks))


@cache
def packages() -> Mapping[str, Path]:
    """Return the folders of what an answer may depend on, by the package's name."""
    found = (path.parent for pattern in PACKAGES for path in sorted(ROOT.glob(f"{pattern}/__init__.py")))
    return {folder.name: folder for folder in found}


def reach(names: Iterable[str]) -> set[str]:
    """Return the packages that these import, the engine's own, and themselves.

    Raises:
        KeyError: one is none of ours, so its sources are not known.
    """
    found: set[str] = set()
    waiting = {*ALWAYS, *names}
    while waiting:
        found |= waiting
        imported = {other for name in waiting for other in _imports(name)}
        waiting = imported & packages().keys() - found
    return found


@cache
def _imports(name: str) -> frozenset[str]:
    text = "\n".join(path.read_text() for path in packages()[name].rglob("*.py"))
    return frozenset(re.findall(r"^\s*(?:from|import) (midstep\w*)", text, re.M))


@cache
def digest(name: str) -> str:
    """Return the digest of a package's sources."""
    made = hashlib.sha256()
    for path in sorted(packages()[name].rglob("*.py")):
        made.update(f"{path.relative_to(packages()[name])}\n".encode())
        made.update(path.read_bytes())
    return made.hexdigest()


@contextmanager
def elsewhere(python_path: str) -> Iterator[WorkOut]:
    """Return what answers cases in a process of its own, which begins with the first one."""
    running: list[subprocess.Popen[bytes]] = []

    def work_out(model: str, case: Case) -> list[Expected]:
        if not running:
            command, shell = [sys.executable, "-m", "engines.kept"], {**os.environ, "PYTHONPATH": python_path}
            running.append(subprocess.Popen(command, env=shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        process = running[0]
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((model, case), process.stdin)
        process.stdin.flush()
        found: list[Expected] = pickle.load(process.stdout)
        return found

    try:
        yield work_out
    finally:
        for process in running:
            process.communicate()


def main() -> None:
    """Answer cases until there are none; what libraries print goes to the errors."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            model, case = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(scenario.answer(model, case), answers)
        answers.flush()


if __name__ == "__main__":
    main()
