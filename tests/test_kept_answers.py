"""What midstep-eager answers is worked out when a test asks, once, and again when what it depends on has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from engines import guided, kept, scenario
from engines.scenario import Case, Expected

CASE = Case("one", "a prompt", {"min_p": {"p": 0.1}}, {"temperature": 1.0}, seed=1)
ANSWER = Expected((1, 2), "ab", "length", None, None, {"min_p": 2})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the list of the cases that are worked out from now on, in an empty folder."""
    monkeypatch.setattr(kept, "KEPT", tmp_path / "expected")
    return []


def answers(asked: list[str], *cases: Case) -> kept.Answers:
    """Return Answers that note what is worked out."""

    def work_out(model: str, case: Case) -> list[Expected]:
        asked.append(case.name)
        return [ANSWER]

    return kept.Answers("model", cases, work_out)


def test_only_what_is_asked_for_is_worked_out_and_once(asked: list[str]) -> None:
    """The second time, and in the next session, it is read."""
    other = replace(CASE, name="other", seed=2)
    first = answers(asked, CASE, other)
    assert first["other"] == first["other"] == [ANSWER]
    assert answers(asked, CASE, other)["other"] == [ANSWER]
    assert asked == ["other"]


def test_a_case_that_differs_is_another(asked: list[str]) -> None:
    """Each field counts, but those that change no answer."""
    own = kept.key("model", CASE)
    assert kept.key("model", replace(CASE, name="streamed", stream=True)) == own
    others = (replace(CASE, seed=2), replace(CASE, max_tokens=3), replace(CASE, methods={"min_p": {"p": 0.2}}))
    keys = {own, kept.key("another", CASE), *(kept.key("model", other) for other in others)}
    assert len(keys) == 5


def test_a_changed_source_counts_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core's and midstep-eager's change every answer, a method's those with the method."""
    plain = replace(CASE, methods=None)
    before = [kept.key("model", case) for case in (CASE, plain)]

    def changed(name: str) -> list[bool]:
        digest = kept.digest
        with monkeypatch.context() as patch:
            patch.setattr(kept, "digest", lambda one: "changed" if one == name else digest(one))
            return [kept.key("model", case) != old for case, old in zip((CASE, plain), before, strict=True)]

    assert changed("midstep") == changed("midstep_eager") == [True, True]
    assert changed("midstep_min_p") == [True, False]
    assert changed("midstep_dry") == [False, False]


def test_a_folder_is_filled_once_for_each_source(asked: list[str], tmp_path: Path) -> None:
    """What was found is read the second time; another model and a changed source fill another folder."""
    source = tmp_path / "source.py"

    def fill(folder: Path) -> list[str]:
        (folder / "made").write_text("1")
        asked.append(folder.name)
        return ["found"]

    source.write_text("1")
    first, again = (kept.once("name", "model", [source], fill) for _ in range(2))
    assert first == again == (first[0], ["found"])
    assert (first[0] / "made").exists()
    other = kept.once("name", "another", [source], fill)
    source.write_text("2")
    changed = kept.once("name", "model", [source], fill)
    assert len({first[0], other[0], changed[0]}) == len(asked) == 3


def test_every_case_has_sources() -> None:
    """No method of a case lies in a package whose sources are not looked at; each digest is of something."""
    of_tests = {"bracket", "force"}  # installed for the engines' parts alone
    for case in (*scenario.CASES, *scenario.REAL_CASES, *guided.CASES):
        if not of_tests & (case.methods or {}).keys():
            kept.key("model", case)
    assert {"midstep", "midstep_eager", "midstep_guidance", "midstep_m3id", "midstep_faulty"} <= kept.packages().keys()
    assert all(any(folder.rglob("*.py")) for folder in kept.packages().values())
