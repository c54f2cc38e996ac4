"""Schedules are played in slices, and one file tells of all that were played at one commit."""

import json
from pathlib import Path

import pytest
from engines import played


def line(seed: int, **wrong: str) -> dict[str, object]:
    """Return a schedule's line."""
    return {"seed": seed, "differences": wrong}


def test_the_slices_are_all_schedules_once() -> None:
    """Each kind of engine gets its share."""
    found = played.slices(("one", "other"))
    assert sorted(seed for _, seeds in found.values() for seed in seeds) == list(played.MORE)
    assert [kind for kind, _ in found.values()] == ["one"] * 3 + ["other"] * 3


def test_lines_of_another_commit_or_setting_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file says was found at its commit; a seed played again is told once."""
    monkeypatch.setattr(played, "FOLDER", tmp_path / "results")
    monkeypatch.setattr("ground.session.commit", lambda: "first")
    played.record("toy", [line(7), line(5, a="b")], tick=1)
    assert [one["seed"] for one in played.record("toy", [line(6), line(5)], tick=1)] == [5, 6, 7]
    kept = json.loads((tmp_path / "results" / "schedules_toy.json").read_text())
    assert (kept["commit"], kept["tick"], kept["played"], kept["wrong"]) == ("first", 1, 3, 0)
    assert [one["seed"] for one in played.record("toy", [line(8)], tick=2)] == [8]
    monkeypatch.setattr("ground.session.commit", lambda: "second")
    assert [one["seed"] for one in played.record("toy", [line(9, a="b")], tick=2)] == [9]
    kept = json.loads((tmp_path / "results" / "schedules_toy.json").read_text())
    assert (kept["commit"], kept["played"], kept["wrong"]) == ("second", 1, 1)
