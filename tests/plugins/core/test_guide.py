"""Contrasts in the pipeline: moved by the kernels and by their definition, drawn at once or stage by stage."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_cases import on_devices
from pydantic import Field
from toy import admission, installed, rows

import midstep
from midstep import guide
from midstep.contrast import plausible
from midstep.statistics import Statistics


class Push(midstep.Guide):
    """Moves away from one companion, or from two."""

    name = "push"

    class Params(midstep.Params):
        """What a request may set."""

        by: float = 1.5
        two: bool = False
        share: float = 0.0
        wild: bool = Field(False, description="Its weight is no number.")
        lift: float = Field(0.0, description="Moves the floor up.")

    @classmethod
    def prepare(cls, params: Any, prompt: object, model: midstep.Model) -> midstep.Prepared:
        names = ["first", "second"] if params.two else ["first"]
        return midstep.Prepared(companions={name: midstep.Companion((7, 8)) for name in names})

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        params = rows.params
        weight = torch.where(params.wild, torch.nan, params.by)
        second = rows.companions.keys() & {"second"}
        return midstep.Contrast(
            {"first": weight, **dict.fromkeys(second, -0.5 * params.by)}, plausible(params.share, own()) + params.lift
        )


class Pull(Push):
    """Another one, for requests that use two."""

    name = "pull"


class Skew(Push):
    """Its weights add up to something else than 1, and top-p goes before it."""

    name = "skew"

    class Params(Push.Params):
        """What a request may set."""

        rest: float = -1.0
        top_p: float = 0.8
        no_scale: bool = Field(False, description="Its scale is no number.")

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        params = rows.params
        scale = torch.where(params.no_scale, torch.nan, params.rest)
        return replace(super().contrast(own, rows), share=params.top_p, scale=scale)


class Broken(Push):
    """Fails for rows whose weight is 7."""

    name = "broken"

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        if (rows.params.by == 7).any():
            raise RuntimeError("seven")
        return super().contrast(own, rows)


@pytest.fixture(autouse=True)
def _installed() -> object:
    with installed(logits_processors=[Push, Pull, Skew, Broken]):
        yield


WARM = midstep.Sampling(temperature=0.8)
GREEDY = midstep.Sampling(temperature=0.0)
CUT = midstep.Sampling(temperature=1.2, top_k=5)
PENALISED = midstep.Sampling(temperature=0.9, frequency_penalty=1.5, repetition_penalty=1.2)
BOTH = {"push": {"by": 0.7}, "pull": {"by": -0.4, "two": True}, "order": ["push", "pull"]}

BATCHES: dict[str, list[tuple[midstep.Sampling, dict[str, Any]]]] = {
    "alone": [(WARM, {"push": {}})],
    "all guided": [(WARM, {"push": {}}), (GREEDY, {"push": {"two": True}}), (WARM, {"push": {"by": 0.0}})],
    "beside plain rows": [(WARM, {"push": {"share": 0.2}}), (WARM, {}), (GREEDY, {})],
    "beside a sampler": [(WARM, {"push": {}}), (WARM, {"min_p": {"p": 0.3}}), (GREEDY, {"push": {}, "min_p": {}})],
    "beside a cut": [(WARM, {"push": {}}), (CUT, {"push": {}}), (CUT, {})],
    "two in a row": [(WARM, BOTH), (WARM, {"pull": {}}), (WARM, {"push": {}})],
    "two in a row, unlike": [(WARM, BOTH), (GREEDY, {**BOTH, "push": {"by": 3.0}, "pull": {"by": 2.0}})],
    "penalised": [(PENALISED, {"push": {}}), (WARM, {"push": {"two": True}})],
    "traced": [(WARM, {"push": {}, "trace": True}), (WARM, {"push": {}})],
    "another processor": [(WARM, {"push": {}, "quadratic": {}}), (WARM, {"quadratic": {}}), (WARM, {"push": {}})],
    "wild": [(WARM, {"push": {"wild": True}}), (WARM, {"push": {}})],
    "a floor above all": [(WARM, {"push": {"lift": 1e6, "share": 1.0}}), (WARM, {"push": {}})],
    "skewed": [
        (WARM, {"skew": {}}),
        (GREEDY, {"skew": {"top_p": 1.0, "two": True}}),
        (WARM, {"skew": {"by": 0.0}}),
        (CUT, {"skew": {"rest": 1.0, "share": 0.1}}),
        (WARM, {"skew": {"no_scale": True}}),
        (WARM, {"push": {}}),
    ],
    "broken": [
        (WARM, {"broken": {"by": 7.0}}),
        (WARM, {"broken": {"two": True}}),
        (GREEDY, {"broken": {"share": 0.5}}),
    ],
}


def answers(device: str, batch: str, missing: bool = False) -> tuple[list[list[int]], list[Any]]:
    """Run three positions of a batch; return the tokens, and what was recorded of every row."""
    entries: list[midstep.Admission | midstep.Shadow] = []
    mains = []
    for i, (sampling, asked) in enumerate(BATCHES[batch]):
        one = admission(f"{i}", sampling, seed=11 + i, **asked)
        shadows = [shadow for shadow, _ in midstep.shadows(one)]
        mains.append(len(entries))
        entries += [one, *(shadows[1:] if missing else shadows)]
    pipeline = midstep.Pipeline(device)
    tokens, seen = [], []
    for position in range(3):
        wide = rows(len(entries) + 2, seed=position).to(device)
        at = torch.full((len(entries),), position, device=device)
        record = pipeline.run(wide, entries, [*range(1, len(entries)), 0], at)
        drawn = wide[[*range(1, len(entries)), 0]].argmax(-1)
        tokens.append(drawn[mains].tolist())
        seen += [(e.key, e.token, e.end, e.fault, e.method, e.changed) for e in record.events()]
    return tokens, seen


def forced(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    if device == "cpu":
        monkeypatch.setattr(guide, "uses_kernels", lambda tensor: True)


@on_devices
@pytest.mark.parametrize("missing", [False, True], ids=["", "without companions"])
@pytest.mark.parametrize("batch", BATCHES)
def test_the_kernels_draw_what_the_definition_draws(
    device: str, batch: str, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And record the same faults, changes and ends."""
    expected = answers("cpu", batch, missing)
    forced(monkeypatch, device)
    assert answers(device, batch, missing) == expected


@on_devices
def test_most_rows_are_drawn_as_they_are_moved(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path without writing is taken where nothing comes after, and only there."""
    guided = pytest.importorskip("midstep.guided")
    taken: dict[str, int] = {}
    for name in ("draw", "contrasted"):
        original = getattr(guided, name)

        def counted(*arguments: Any, _name: str = name, _original: Any = original) -> Any:
            taken[_name] = taken.get(_name, 0) + len(arguments[1])
            return _original(*arguments)

        monkeypatch.setattr(guided, name, counted)
    forced(monkeypatch, device)
    for batch, expected in (
        ("all guided", {"draw": 9}),
        ("beside plain rows", {"draw": 3}),
        ("two in a row", {"draw": 9, "contrasted": 3}),
        ("beside a cut", {"contrasted": 6}),
        ("traced", {"contrasted": 6}),
    ):
        taken.clear()
        answers(device, batch)
        assert taken == expected, batch


@on_devices
def test_the_kernels_copy_no_companion(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They read the engine's own rows."""
    copied: list[midstep.companions.Companions] = []
    monkeypatch.setattr(midstep.companions.Companions, "_copied", lambda self, *_: copied.append(self))
    forced(monkeypatch, device)
    answers(device, "all guided")
    answers(device, "two in a row")
    assert not copied
