"""Proxy tuning, DExperts and contrastive decoding: their companions, their formulas, their effect on an answer."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import two_prompts
from torch import Tensor
from transformers import TopPLogitsWarper
from two_prompts import GREEDY, OTHER, PROMPT, answer, looped

import midstep
from midstep import Companion, testing
from midstep.testing.examples import example
from midstep_experts import Contrastive, DExperts, ProxyTuning

WARM = midstep.Sampling(temperature=0.9)
METHODS = (ProxyTuning, DExperts, Contrastive)
INF = float("inf")
BASE, EXPERT, ANTI = [1.0, 2.0, 0.0, -1.0], [2.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]
OWN, AMATEUR = [2.0, 1.0, 0.5, -1.0, -3.0], [1.0, 1.5, 0.5, 0.0, -3.0]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_they_keep_the_laws(method: type[midstep.Guide]) -> None:
    testing.check(method)


def moved(method: type[midstep.Guide], own: list[float], others: dict[str, list[float]], **params: Any) -> list[float]:
    """Return what a method makes of one row; companions that it does not ask for are its own row."""
    given = method.Params.model_validate(params)
    _, rows, used = example(method, given)
    rows.params = type(rows.params)(**{name: torch.tensor([value]) for name, value in used.columns.items()})
    rows.position = rows.position[:1]
    assert set(used.companions) == set(others)
    rows.companions = {name: torch.tensor([row]) for name, row in others.items()}
    return method().apply(torch.tensor([own]), rows)[0].tolist()  # type: ignore[no-any-return]


BOTH: dict[str, Any] = {"expert": "base", "expert_prompt": [1], "anti": "base", "anti_prompt": [2]}


def test_proxy_tunings_golden() -> None:
    """A8.proxy_alpha1, A8.proxy_probs."""
    rows = {"expert": EXPERT, "anti": ANTI}
    found = moved(ProxyTuning, BASE, rows, **BOTH)
    assert found == [3.0, 1.0, 0.0, -1.0]
    assert torch.tensor(found).softmax(-1).tolist() == pytest.approx([0.830953, 0.112457, 0.041371, 0.015219], abs=1e-6)
    assert moved(ProxyTuning, BASE, rows, **BOTH, scale=0.0) == BASE
    assert moved(ProxyTuning, BASE, rows, **BOTH, scale=-1.0) == [-1.0, 3.0, 0.0, -1.0]


def test_the_row_itself_stands_for_an_expert_that_would_be_it() -> None:
    """Here it wears no adapter, and neither do they: y = x + (x - anti), and y = x + (expert - x)."""
    assert moved(ProxyTuning, BASE, {"anti": ANTI}, expert="own", anti_prompt=[2]) == [2.0, 3.0, -1.0, -2.0]
    assert moved(ProxyTuning, BASE, {"expert": EXPERT}, expert="base", expert_prompt=[2]) == EXPERT


def test_dexperts_golden() -> None:
    """A8.dexperts_topp.9_alpha2, the defaults."""
    rows = {"expert": EXPERT, "anti": ANTI}
    assert moved(DExperts, BASE, rows, **BOTH) == [5.0, 0.0, 0.0, -INF]
    assert moved(DExperts, BASE, rows, **BOTH, filter_p=1.0) == [5.0, 0.0, 0.0, -1.0]
    assert moved(DExperts, BASE, rows, **BOTH, filter_p=0.5) == [-INF, 0.0, -INF, -INF]
    assert moved(DExperts, BASE, rows, **BOTH, alpha=-1.0) == [-1.0, 3.0, 0.0, -INF]
    assert moved(DExperts, BASE, rows, **BOTH, alpha=0.0) == BASE


def test_dexperts_without_one_of_them_has_the_unfiltered_row_instead() -> None:
    one: dict[str, Any] = {"anti": "base", "anti_prompt": [2], "alpha": 1.0}
    assert moved(DExperts, BASE, {"anti": ANTI}, **one) == [2.0, 3.0, -1.0, -INF]
    other: dict[str, Any] = {"expert": "base", "expert_prompt": [2], "alpha": 1.0}
    assert moved(DExperts, BASE, {"expert": EXPERT}, **other) == [2.0, 0.0, 1.0, -INF]


def test_contrastives_goldens() -> None:
    """A6.cd_probs, the default; A6.cd_obrien_beta.5."""
    rows = {"amateur": AMATEUR}
    found = torch.tensor(moved(Contrastive, OWN, rows, amateur_prompt=[1])).softmax(-1).tolist()
    assert found == pytest.approx([0.574097, 0.077696, 0.348207, 0.0, 0.0], abs=1e-6)
    assert moved(Contrastive, OWN, rows, amateur_prompt=[1], form="difference") == [2.5, 0.75, 0.5, -INF, -INF]


def test_contrastives_parameters() -> None:
    def made(**params: Any) -> list[float]:
        return moved(Contrastive, OWN, {"amateur": AMATEUR}, amateur_prompt=[1], **params)

    assert made(tau=1.0)[:3] == [1.0, -0.5, 0.0]
    assert made(tau=1.0, coef=0.5)[:3] == [1.5, 0.25, 0.25]
    assert made(plausible=0.0) == [0.0, -2.0, -0.5, -1.0, 3.0]
    assert made(plausible=0.3) == [0.0, -2.0, -INF, -INF, -INF]
    assert made(form="difference", beta=1.0)[:3] == [3.0, 0.5, 0.5]
    assert made(coef=0.0) == made(form="difference", beta=0.0) == OWN


def companions(method: type[midstep.Guide], adapter: str | None = None, **params: Any) -> Mapping[str, Companion]:
    model = midstep.Model(97, two_prompts.tokenizer(), adapter=adapter, adapters=("math", "instruct"))
    return method.prepare(method.Params.model_validate(params), PROMPT, model).companions


def test_their_companions() -> None:
    """Under their own prompt or the request's; not the one that would be its row."""
    text = tuple(two_prompts.tokenizer()("Be dull.").input_ids)
    math, base = {"expert": Companion(PROMPT, "lora:math")}, {"anti": Companion(PROMPT, "base")}
    assert companions(ProxyTuning, expert="lora:math") == math
    assert companions(ProxyTuning, "math", expert="lora:math") == base
    assert companions(ProxyTuning, "instruct", expert="lora:math") == {**math, **base}
    assert companions(ProxyTuning, "math", expert="own", anti_prompt="Be dull.") == {"anti": Companion(text, "base")}
    assert companions(DExperts, anti="lora:math") == {"anti": Companion(PROMPT, "lora:math")}
    assert companions(Contrastive, "math") == {"amateur": Companion(PROMPT, "base")}
    assert companions(Contrastive, amateur_prompt=[5]) == {"amateur": Companion((5,), "base")}


def proxied(scale: float) -> Any:
    return lambda t, rows: int((rows[0] + scale * (rows[1] - rows[2])).argmax())


@pytest.mark.parametrize("scale", [1.0, -0.7, 2.5])
@pytest.mark.parametrize("own", [None, "instruct"])
def test_proxy_tuning_equals_three_caches_and_a_loop(own: str | None, scale: float) -> None:
    expected = looped(proxied(scale), (own, PROMPT), ("math", OTHER), (None, PROMPT))
    asked = {"expert": "lora:math", "anti": "base", "expert_prompt": list(OTHER), "scale": scale}
    assert answer(adapter=own, proxy_tuning=asked) == expected
    assert expected != answer(adapter=own, min_p={})


def test_at_scale_1_the_base_becomes_the_expert() -> None:
    """y = x + (u_expert - x)."""
    assert answer(proxy_tuning={"expert": "lora:math"}) == answer(adapter="math", min_p={})


@pytest.mark.parametrize(("alpha", "filter_p"), [(2.0, 0.9), (-1.0, 0.5), (3.2, 1.0)])
def test_dexperts_equals_three_caches_and_a_loop(alpha: float, filter_p: float) -> None:
    """Filtered by Hugging Face's top-p."""

    def said(t: int, rows: list[Tensor]) -> int:
        own = TopPLogitsWarper(filter_p)(torch.zeros(1, 0), rows[0][None].float())[0] if filter_p < 1 else rows[0]
        return int((own + alpha * (rows[1] - rows[2])).argmax())

    expected = looped(said, (None, PROMPT), ("math", PROMPT), ("instruct", OTHER))
    asked = {"expert": "lora:math", "anti": "lora:instruct", "anti_prompt": list(OTHER)}
    assert answer(dexperts={**asked, "alpha": alpha, "filter_p": filter_p}) == expected
    assert expected != answer(min_p={})


@pytest.mark.parametrize("form", ["ratio", "difference"])
def test_contrastive_equals_two_caches_and_a_loop(form: str) -> None:
    def said(t: int, rows: list[Tensor]) -> int:
        own, amateur = rows
        score = own - amateur / 0.5 if form == "ratio" else 1.5 * own - 0.5 * amateur
        return int(score.masked_fill(own < own.max() + torch.tensor(0.1).log(), -INF).argmax())

    expected = looped(said, ("math", PROMPT), (None, PROMPT))
    assert answer(adapter="math", contrastive={"form": form}) == expected
    assert expected != answer(adapter="math", min_p={})


OFF: Mapping[str, dict[str, Any]] = {
    "proxy_tuning": {"expert": "lora:math", "scale": 0.0},
    "dexperts": {"expert": "lora:math", "alpha": 0.0},
    "contrastive": {"amateur": "lora:math", "coef": 0.0},
}


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", OFF)
def test_weight_0_gives_the_unguided_answer(name: str, sampling: midstep.Sampling) -> None:
    assert answer(sampling, **{name: OFF[name]}) == answer(sampling, min_p={"p": 0.0})


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"proxy_tuning": {}}, r"proxy_tuning\.expert.*field required"),
        ({"proxy_tuning": {"expert": "math"}}, r"proxy_tuning\.expert = 'math'"),
        ({"proxy_tuning": {"expert": "lora:art"}}, "'art', which is not loaded; loaded: 'instruct', 'math': load it"),
        ({"proxy_tuning": {"expert": "own"}}, "expert and anti would be one row.*another adapter.*another prompt"),
        ({"proxy_tuning": {"expert": "lora:math", "anti": "lora:math"}}, "would be one row: both wear the adapter"),
        ({"proxy_tuning": {"expert": "lora:math", "scale": 1e9}}, "less than or equal to 100"),
        ({"proxy_tuning": {"expert": "lora:math", "expert_prompt": "text"}}, "this server has none; send token ids"),
        ({"proxy_tuning": {"expert": "lora:math", "expert_prompt": []}}, "empty prompt"),
        ({"dexperts": {}}, "expert and anti would be one row"),
        ({"dexperts": {"expert": "lora:math", "anti_prompt": [1]}}, 'anti_prompt without anti; name.*"anti": "base"'),
        ({"dexperts": {"expert": "lora:math", "alpha": float("nan")}}, "(?i)nan|finite"),
        ({"dexperts": {"expert": "lora:math", "filter_p": 1.5}}, "less than or equal to 1"),
        ({"contrastive": {}}, "the request itself and amateur would be one row: both wear no adapter.*another prompt"),
        ({"contrastive": {"amateur": "lora:math", "tau": 0.0}}, "greater than or equal to 0.01"),
        ({"contrastive": {"amateur": "lora:math", "form": "both"}}, "'ratio' or 'difference'"),
        ({"contrastive": {"amateur": "lora:math"}, "cfg": {}}, "cfg and contrastive both guide|contrastive and cfg"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_way_out(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        answer(**asked)
