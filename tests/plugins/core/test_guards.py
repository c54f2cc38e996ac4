"""A broken method ends its own rows, or lets them go on; the others never notice."""

from collections.abc import Iterator

import pytest
import torch
from pydantic import Field
from torch import Tensor
from toy import admission, call, installed, rows

import midstep
from midstep.configuration import Limits

WAYS = {
    "raise": "exception",
    "nan": "nan",
    "inf": "nan",
    "empty": "empty",
    "shape": "shape",
    "dtype": "dtype",
    "none": "shape",
    "unmask": "",
}


class Broken(midstep.LogitsProcessor):
    """Breaks in the way that the test asks for."""

    name = "broken"
    state = {"seen": midstep.Column(torch.int64)}  # noqa: RUF012 - ClassVar of the base
    way = "raise"
    calls = 0

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Break, after having touched everything it was given."""
        type(self).calls += 1
        rows.state["seen"] += 1
        logits += 1
        if self.way == "raise":
            raise RuntimeError("broken")
        if self.way == "none":
            return None  # type: ignore[return-value]
        if self.way == "state":
            rows.state["seen"] = rows.state["seen"].float()
        broken = {
            "nan": logits * torch.nan, "inf": logits + torch.inf, "empty": logits - torch.inf, "shape": logits[:, :5],
            "dtype": logits.double(), "unmask": torch.zeros_like(logits),
        }  # fmt: skip
        return broken.get(self.way, logits)


class Poisoned(midstep.LogitsProcessor):
    """Raises for one request only."""

    name = "poisoned"

    class Params(midstep.Params):
        """What a request may set."""

        now: bool = Field(False, description="Raise.")

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Raise where a row asks for it."""
        if bool(rows.params.now.any()):
            raise RuntimeError("poisoned")
        return logits + 1


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    Broken.calls = 0
    with installed(logits_processors=[Broken, Poisoned]):
        yield


WARM = midstep.Sampling(temperature=0.9)


@pytest.mark.parametrize("way", [*WAYS, "state"])
@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_neighbours_are_bitwise_unharmed(way: str, on_error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "way", way)
    logits = rows(4, seed=3)
    logits[:, 10:20] = -torch.inf
    before = logits.clone()
    sick = admission("sick", WARM, seed=1, broken={}, on_error=on_error)
    well = admission("well", WARM, seed=2, min_p={})
    alone = call(midstep.Pipeline("cpu"), [well], before[2:3].clone())[0]
    unsteered = call(midstep.Pipeline("cpu"), [admission("x", WARM, seed=1, min_p={"p": 0.0})], before[1:2].clone())[0]
    record = midstep.Pipeline("cpu").run(logits, [sick, well], [1, 2], torch.tensor([0, 0]))
    events = {event.key: event for event in record.events()}
    assert torch.equal(logits[0], before[0])
    assert torch.equal(logits[3], before[3])
    assert [logits[2].argmax().item()] == alone
    assert logits[1].isfinite().sum() == 1
    assert not 10 <= logits[1].argmax() < 20
    fault = {**WAYS, "state": "dtype"}[way]
    if fault:
        assert (events["sick"].fault, events["sick"].method) == (fault, "broken")
        assert midstep.reason(events["sick"]) == (f"midstep:broken:{fault}" if on_error == "stop" else None)
        assert [logits[1].argmax().item()] == unsteered


def test_only_the_request_that_makes_a_method_raise_ends() -> None:
    logits = rows(3)
    three = [admission(k, WARM, poisoned={"now": k == "b"}) for k in "abc"]
    healthy = call(midstep.Pipeline("cpu"), [three[0], three[2]], logits[[0, 2]].clone())[0]
    tokens, events = call(midstep.Pipeline("cpu"), three, logits)
    assert [tokens[0], tokens[2]] == healthy
    assert {key for key, event in events.items() if event.end} == {"b"}


def test_a_failed_call_leaves_no_state_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = midstep.Pipeline("cpu")
    one = admission("a", WARM, broken={}, on_error="continue")
    call(pipeline, [one], rows(1), 0)
    monkeypatch.setattr(Broken, "way", "fine")
    _, events = call(pipeline, [one], rows(1), 1)
    assert "a" not in events or events["a"].fault == ""
    slots, position = torch.tensor([pipeline.slots.find("a")]), torch.tensor([2])
    assert pipeline.memory.read(("broken", "seen"), slots, position, 0).tolist() == [1]


def test_a_slow_method_is_reported_and_then_no_longer_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Broken, "way", "fine")
    pipeline = midstep.Pipeline("cpu", limits=Limits(call_seconds=1e-9, slow_calls=2))
    one = admission("a", WARM, broken={})
    events = [call(pipeline, [one], rows(1), at)[1] for at in range(3)]
    assert Broken.calls == 2
    assert [midstep.reason(e["a"]) if e and e["a"].end else None for e in events] == [None, None, "midstep:broken:slow"]
    assert "limits.call_seconds" in caplog.text


def test_a_fault_is_logged_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = midstep.Pipeline("cpu")
    for i in range(5):
        call(pipeline, [admission(f"{i}", WARM, broken={})], rows(1))
    assert caplog.text.count("broken failed (exception)") == 1
    assert pipeline.guard.faults["broken", "exception"] == 5
