"""The report: what it counts, and that one function finds it in every engine's answer."""

import json
from types import SimpleNamespace

from toy import admission

import midstep
from midstep.record import Event


def event(position: int, **more: object) -> Event:
    usual = {
        "key": "a", "position": position, "token": 7, "end": False, "rule": "", "value": 1.5, "threshold": float("nan"),
        "fault": "", "method": "", "changed": (), "trace": None,
    }  # fmt: skip
    return Event(**{**usual, **more})  # type: ignore[arg-type]


def test_only_kept_tokens_count_and_a_token_drawn_again_counts_once() -> None:
    ledger = midstep.Ledger(admission(min_p={"p": 0.2}))
    for position in (0, 1, 1, 2, 9):
        ledger.add(event(position, changed=("min_p",)))
    found = ledger.report(3)
    assert found.methods["min_p"].model_dump() == {"params": {"p": 0.2}, "tokens": 3, "changed": 3}
    assert (found.stop, found.faults, found.trace, found.seed) == (None, [], None, 1)


def test_a_stop_and_faults_are_told_with_their_positions() -> None:
    ledger = midstep.Ledger(admission(min_p={}))
    for position in (1, 2):
        ledger.add(event(position, fault="nan", method="min_p"))
    ledger.add(event(3, end=True, rule="deepconf"))
    found = ledger.report(4)
    assert found.stop is not None
    assert found.stop.model_dump() == {"rule": "deepconf", "position": 3, "value": 1.5, "threshold": None}
    assert [fault.model_dump() for fault in found.faults] == [
        {"method": "min_p", "fault": "nan", "position": 1, "count": 2}
    ]


def test_a_report_is_read_from_every_shape_of_answer() -> None:
    ledger = midstep.Ledger(admission(min_p={}))
    made = ledger.report(2)
    data = json.loads(made.model_dump_json())
    vllm = {"midstep": {"0": data, "1": data}}
    assert midstep.report(SimpleNamespace(kv_transfer_params=vllm), 1) == made
    assert midstep.report({"kv_transfer_params": vllm}) == made
    assert midstep.report({"kv_transfer_params": vllm}, 2) is None
    assert midstep.report({"text": "x", "meta_info": {"midstep": data}}) == made
    assert midstep.report([{"meta_info": {}}, {"meta_info": {"midstep": made.model_dump_json()}}], 1) == made
    assert midstep.report({"choices": [{"meta_info": {"midstep": data}}]}) == made
    assert midstep.report({"choices": []}) is None
    assert midstep.report(SimpleNamespace(kv_transfer_params=None)) is None


def test_seeds_are_reported_as_their_64_bits() -> None:
    assert midstep.Ledger(admission(min_p={}, seed=2**64 - 3)).report(0).seed == 2**64 - 3
