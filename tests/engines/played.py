"""The schedules of `./test --long`: slices of minutes, and a result file that tells of all played at one commit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ground import places, session

MORE = range(5, 60)  # the seeds
SLICES = range(3)  # how often a kind of engine is started for its share of MORE
FOLDER = places.ROOT / "tests" / "results"


def slices(kinds: Iterable[str]) -> dict[str, tuple[str, Sequence[int]]]:
    """Return by name the kind of engine and the seeds of each slice; all slices together are MORE."""
    names = list(kinds)
    return {
        f"{kind}, {i}": (kind, MORE[at :: len(names)][i :: len(SLICES)])
        for at, kind in enumerate(names)
        for i in SLICES
    }


def record(engine: str, lines: Iterable[Mapping[str, Any]], **about: Any) -> list[Mapping[str, Any]]:
    """Write what became of schedules, with the commit, into tests/results/schedules_ENGINE.json.

    Returns:
        All lines that stand there now: those of other seeds stay, where commit and `about` are the same.
    """
    path = FOLDER / f"schedules_{engine}.json"
    head = {"commit": session.commit(), "engine": engine, **about}
    before = json.loads(path.read_text()) if path.exists() else {}
    same = all(before.get(key) == value for key, value in head.items())
    by_seed = {line["seed"]: line for line in (*(before["schedules"] if same else ()), *lines)}
    found = [by_seed[seed] for seed in sorted(by_seed)]
    told = {**head, "played": len(found), "of": len(MORE), "wrong": sum(map(is_wrong, found))}
    path.parent.mkdir(exist_ok=True)
    text = ",\n  ".join(json.dumps(line) for line in found)
    path.write_text(json.dumps(told, indent=1)[:-2] + f',\n "schedules": [\n  {text}\n ]\n}}\n')
    return found


def is_wrong(line: Mapping[str, Any]) -> bool:
    """Say whether an answer of a schedule was not midstep-eager's."""
    return bool(line["differences"])
