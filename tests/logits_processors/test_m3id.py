"""M3ID: its weights, its gate and its mask, and its effect on an answer."""

import math
from typing import Any

import pytest
import torch
import two_prompts
from torch import Tensor
from two_prompts import GREEDY, OTHER, answer, plainly

import midstep
from midstep import testing
from midstep.testing.examples import example
from midstep_m3id import M3id
from midstep_m3id.reference import GATE, MASK, weigh

INF = float("inf")
OWN, WITHOUT = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0]]), torch.tensor([[1.0, 1.5, 0.5, 0.0, -3.0]])


def test_it_keeps_the_laws() -> None:
    testing.check(M3id)


def weight(t: int, mode: int = GATE, top: float = 0.0, lse: float = 9.0, **given: float) -> tuple[float, float]:
    p = {"decay": 0.02, "threshold": 0.3, "plausible": 0.1, "most": 1e6, **given}
    columns = [torch.tensor([value]) for value in (top, lse, t, p["decay"], mode, p["threshold"])]
    found = weigh(*columns, torch.tensor([p["plausible"]]), torch.tensor([p["most"]]))
    return float(found[0]), float(found[1])


def test_the_weight_grows_with_the_answer() -> None:
    """Golden A2.weight_t."""
    expected = {0: 0.0, 1: 0.020201, 10: 0.221403, 50: 1.718282, 100: 6.389056, 500: 22025.465795}
    for t, value in expected.items():
        assert weight(t)[0] == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert weight(500, most=10.0)[0] == 10.0
    assert weight(100_000, decay=1.0, most=10.0)[0] == 10.0
    assert weight(50, decay=0.0)[0] == 0.0


def test_the_gate_opens_below_the_threshold() -> None:
    """At the threshold itself it is shut; the mask knows no gate."""
    third = math.log(0.5)
    assert weight(50, top=third, lse=0.0, threshold=0.5)[0] == 0.0
    assert weight(50, top=third, lse=0.0, threshold=0.51)[0] > 1.7
    assert weight(50, mode=MASK, top=third, lse=0.0, threshold=0.0)[0] > 1.7
    assert weight(50)[1] == -INF
    assert weight(50, mode=MASK, top=2.0)[1] == pytest.approx(2.0 + math.log(0.1))
    assert weight(50, mode=MASK, top=2.0, plausible=0.0)[1] == -INF


def moved(position: int, **params: Any) -> Tensor:
    """Return what it makes of one row beside one companion, as log-probabilities that are not normalised."""
    given = M3id.Params.model_validate({"instead": [1], **params})
    _, rows, used = example(M3id, given, position)
    rows.params = type(rows.params)(**{name: torch.tensor([value]) for name, value in used.columns.items()})
    rows.position = rows.position[:1]
    rows.companions = {"other": WITHOUT.log_softmax(-1)}
    return M3id().apply(OWN.log_softmax(-1), rows)


def test_its_goldens() -> None:
    """A2.gate_closed_t50_alpha.3, A2.gate_open_t50_alpha.7, A2.mask_t50_beta.1."""
    shut = [-0.49928, -1.49928, -1.99928, -3.49928, -5.49928]
    assert moved(50)[0].tolist() == pytest.approx(shut, abs=1e-5)
    opened = [0.863491, -2.713931, -2.354791, -5.573072, -5.854791]
    assert moved(50, threshold=0.7)[0].tolist() == pytest.approx(opened, abs=1e-5)
    masked = [0.863491, -2.713931, -2.354791, -INF, -INF]
    assert moved(50, mode="mask")[0].tolist() == pytest.approx(masked, abs=1e-5)


def test_the_first_token_is_unguided() -> None:
    """To the bit, with the mask too: its weight is 0."""
    for mode in ("gate", "mask"):
        assert torch.equal(moved(0, mode=mode, threshold=1.0), OWN.log_softmax(-1))


@pytest.mark.parametrize("mode", ["gate", "mask"])
def test_it_equals_two_caches_and_a_loop(mode: str) -> None:
    """With a decay that reaches the bound."""
    decay, threshold, plausible, most = 0.4, 0.6, 0.2, 5.0

    def combined(t: int, own: Tensor, other: Tensor) -> Tensor:
        w = min(math.expm1(decay * t), most)
        if mode == "gate":
            return own + w * (own - other) if own.max() < math.log(threshold) else own
        return (own + w * (own - other)).masked_fill(own < own.max() + math.log(plausible), -INF) if w else own

    expected = plainly(combined)
    asked = {"decay": decay, "threshold": threshold, "plausible": plausible, "most": most, "mode": mode}
    assert answer(m3id={**asked, "instead": list(OTHER)}) == expected
    assert expected != answer(min_p={})


@pytest.mark.parametrize("sampling", [GREEDY, midstep.Sampling(temperature=0.9)], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    "off", [{"decay": 0.0}, {"threshold": 0.0}, {"most": 0.0}, {"mode": "mask", "decay": 0.0}], ids=str
)
def test_what_switches_it_off_gives_the_unguided_answer(off: dict[str, Any], sampling: midstep.Sampling) -> None:
    assert answer(sampling, m3id={"instead": list(OTHER), **off}) == answer(sampling, min_p={"p": 0.0})


def test_the_context_is_taken_out_of_the_prompt() -> None:
    tokenizer = two_prompts.tokenizer()
    model = midstep.Model(vocabulary=len(tokenizer), tokenizer=tokenizer)
    prompt = tokenizer("The sea is green. What colour is it?").input_ids
    prepared = M3id.prepare(M3id.Params(without="The sea is green. "), prompt, model)
    assert prepared.companions == {"other": midstep.Companion(tuple(tokenizer("What colour is it?").input_ids))}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "none of without and instead is given; send exactly one"),
        ({"without": "a", "instead": [1]}, "both of without and instead"),
        ({"instead": [1], "decay": -0.1}, "greater than or equal to 0"),
        ({"instead": [1], "decay": float("nan")}, "(?i)nan|finite"),
        ({"instead": [1], "most": 1e9}, "less than or equal to 100"),
        ({"instead": [1], "mode": "both"}, r"m3id\.mode = 'both'.*'gate' or 'mask'"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_way_out(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        answer(m3id=asked)
