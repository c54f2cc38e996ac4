"""A method that fails ends its own rows, or they go on without it; nobody else notices, and the engine lives."""

from __future__ import annotations

from typing import Any

import pytest
from engines.vllm import driver
from engines.vllm.crowd import crowd, prompt, sampling

import midstep

FAULTS = ("raise", "nan", "empty", "shape", "dtype")
NAMES = {"raise": "exception"}


def ids(found: dict[str, list[driver.Sample]]) -> dict[str, list[int]]:
    """Return the first sample's ids by name."""
    return {name: samples[0].ids for name, samples in found.items()}


def failing(on_error: str) -> list[tuple[str, list[int], Any]]:
    """Return one request per way to fail, at position 3."""
    extras = {how: midstep.request(on_error=on_error, faulty={"how": how, "at": 3}) for how in FAULTS}
    return [(how, prompt(8, i), sampling(i, extra, max_tokens=10)) for i, (how, extra) in enumerate(extras.items())]


@pytest.fixture(scope="module")
def unharmed(engine: Any) -> dict[str, list[int]]:
    """The crowd's answers, and what the failing requests would have answered without their method."""
    healthy = [(name, tokens, sampling(i, midstep.request(trace=True), max_tokens=10))
               for i, (name, tokens, _) in enumerate(failing("stop"))]  # fmt: skip
    return ids(driver.run(engine, crowd() + healthy))


def test_failing_rows_end_with_their_reason(engine: Any, unharmed: dict[str, list[int]]) -> None:
    """Each ends at the position of its first failure, with the token it would have drawn without the method."""
    found = driver.run(engine, [pair for pairs in zip(crowd(), failing("stop"), strict=False) for pair in pairs])
    for how in FAULTS:
        sample = found[how][0]
        assert (sample.finish_reason, sample.stop_reason) == ("stop", f"midstep:faulty:{NAMES.get(how, how)}")
        assert sample.ids == unharmed[how][:4]
        assert [(f.method, f.position) for f in sample.report.faults] == [("faulty", 3)]
    for name, answer in ids(found).items():
        if name not in FAULTS:
            assert answer == unharmed[name]


def test_failing_rows_go_on_without_the_method(engine: Any, unharmed: dict[str, list[int]]) -> None:
    """With on_error="continue" the answer is that of a request which never asked for the method."""
    found = driver.run(engine, failing("continue") + crowd())
    assert ids(found) == unharmed
    for how in FAULTS:
        faults = found[how][0].report.faults
        assert [(f.fault, f.position, f.count) for f in faults] == [(NAMES.get(how, how), 3, 7)]


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("faulty_stop", "midstep:faulty_stop:exception"),
        ("faulty_rule", "midstep:faulty_rule:empty"),
        ("faulty_choice", "midstep:faulty_choice:masked"),
    ],
)
def test_stops_and_samplers_that_fail(engine: Any, method: str, reason: str) -> None:
    """The other kinds are guarded the same way."""
    found = driver.run(engine, [("a", prompt(7, 3), sampling(3, midstep.request(**{method: {}})))])
    assert found["a"][0].stop_reason == reason


def test_midstep_itself_fails(engine: Any, unharmed: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours ends the rows of its call with `midstep:internal:exception`; everybody else goes on."""
    calls, whole = [], midstep.Pipeline.run

    def run(self: Any, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 5:
            raise RuntimeError("midstep is broken")
        return whole(self, *args)

    plain = ("plain", prompt(9, 50), sampling(None, None, temperature=0.0))
    before = driver.run(engine, [plain])["plain"][0].ids
    with monkeypatch.context() as patch:
        patch.setattr(midstep.Pipeline, "run", run)
        found = driver.run(engine, [*crowd()[:3], plain])
    assert found.pop("plain")[0].ids == before
    for samples in found.values():
        assert samples[0].stop_reason == "midstep:internal:exception"
        assert samples[0].report.faults[0].method == "internal"
    assert ids(driver.run(engine, crowd())) == {name: unharmed[name] for name, _, _ in crowd()}


def test_a_slow_method_is_no_longer_called(engine: Any, unharmed: dict[str, list[int]]) -> None:
    """After limits.slow_calls = 3 calls of more than a second its rows end or go on without it, later ones at once."""
    name, tokens, params = crowd()[0]

    def ask(on_error: str) -> driver.Sample:
        slow = sampling(0, midstep.request(on_error=on_error, faulty_slow={"at": 2, "seconds": 1.1}), max_tokens=8)
        found = driver.run(engine, [("slow", prompt(8, 0), slow), (name, tokens, params)])
        assert found[name][0].ids == unharmed[name]
        return found["slow"][0]

    first, later, left_out = ask("stop"), ask("stop"), ask("continue")
    for sample, position in ((first, 5), (later, 0)):
        assert (sample.finish_reason, sample.stop_reason) == ("stop", "midstep:faulty_slow:slow")
        assert [(f.fault, f.position) for f in sample.report.faults] == [("slow", position)]
        assert len(sample.ids) == position + 1
    assert left_out.finish_reason == "length"
    assert [(f.fault, f.position, f.count) for f in left_out.report.faults] == [("slow", 0, 8)]
