"""Guidance: the three methods, their prompts, and their effect on an answer."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import two_prompts
from torch import Tensor
from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor
from two_prompts import GREEDY, OTHER, PROMPT, TOKENS, answer, plainly

import midstep
from midstep import testing
from midstep.testing.examples import example
from midstep_guidance import Cad, Cfg, Preadd

WARM = midstep.Sampling(temperature=0.9)
METHODS = (Cfg, Cad, Preadd)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_they_keep_the_laws(method: type[midstep.Guide]) -> None:
    testing.check(method)


def moved(method: type[midstep.Guide], own: list[float], other: list[float], **params: Any) -> list[float]:
    """Return what a method makes of one row beside one companion."""
    given = method.Params.model_validate(params)
    prepared = method.prepare(given, (3, 4), midstep.Model(vocabulary=9))
    _, rows, used = example(method, given)
    rows.params = type(rows.params)(**{name: torch.tensor([value]) for name, value in used.columns.items()})
    rows.position = rows.position[:1]
    rows.companions = {name: torch.tensor([other]) for name in prepared.companions}
    return method().apply(torch.tensor([own]), rows)[0].tolist()  # type: ignore[no-any-return]


OWN, WITHOUT = [2.0, 1.0, 0.5, -1.0, -3.0], [1.0, 1.5, 0.5, 0.0, -3.0]


def test_cfgs_golden() -> None:
    """A3.cfg_1.5, but for the constant that log-probabilities add."""
    found = moved(Cfg, OWN, WITHOUT, scale=1.5)
    assert found == [2.5, 0.75, 0.5, -1.5, -3.0]
    own, other = (torch.tensor(x, dtype=torch.float64).log_softmax(-1) for x in (OWN, WITHOUT))
    golden = torch.tensor([-0.102729, -1.852729, -2.102729, -4.102729, -5.602729], dtype=torch.float64)
    assert torch.allclose(1.5 * own - 0.5 * other, golden, atol=1e-6)
    assert torch.allclose(torch.tensor(found).softmax(-1).double(), golden.softmax(-1), atol=1e-6)
    assert moved(Cfg, OWN, WITHOUT, scale=1.0) == OWN
    assert moved(Cfg, OWN, WITHOUT, scale=0.0) == WITHOUT


def test_several_negatives_are_their_mean() -> None:
    """Twice the same one is once."""
    assert moved(Cfg, OWN, WITHOUT, scale=2.0, negatives=[[1], [2]]) == moved(Cfg, OWN, WITHOUT, scale=2.0)


def test_cads_golden() -> None:
    """A4.cad_0.5, the default."""
    assert moved(Cad, OWN, WITHOUT, instead=[1]) == [2.5, 0.75, 0.5, -1.5, -3.0]
    assert moved(Cad, OWN, WITHOUT, instead=[1], alpha=0.0) == OWN


def test_preadds_golden() -> None:
    """A8.preadd_strength-1, the default; A8.preadd_equals_cfg."""
    base, anti = [1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 0.0]
    assert moved(Preadd, base, anti, prefix=[1]) == [2.0, 3.0, -1.0, -2.0]
    assert moved(Preadd, base, anti, prefix=[1]) == moved(Cfg, base, anti, scale=2.0)
    assert moved(Preadd, base, anti, prefix=[1], scale=1.0) == anti
    assert moved(Preadd, base, anti, prefix=[1], scale=0.0) == base


def test_implausible_tokens_are_removed_where_a_row_is_moved() -> None:
    """The share is of the row's own best token."""
    inf = float("inf")
    for method, more in ((Cfg, {}), (Cad, {"instead": [1]}), (Preadd, {"prefix": [1], "scale": -0.5})):
        assert moved(method, OWN, WITHOUT, plausible=0.1, **more)[3:] == [-inf, -inf]
    assert moved(Cfg, OWN, WITHOUT, plausible=0.9, scale=1.0) == OWN


def companions(method: type[midstep.Guide], prompt: Any, **params: Any) -> list[tuple[int, ...]]:
    model = midstep.Model(vocabulary=49152, tokenizer=two_prompts.tokenizer())
    ids = model.tokenizer(prompt).input_ids if isinstance(prompt, str) else prompt
    prepared = method.prepare(method.Params.model_validate(params), ids, model)
    return [companion.prompt for companion in prepared.companions.values()]


def test_their_prompts() -> None:
    """As texts, ids, messages, parts of the prompt and prefixes."""
    tokenizer = two_prompts.tokenizer()
    ids = {text: tuple(tokenizer(text).input_ids) for text in ("Be dull.", "A b.", "Be dull. A b.", "b.")}
    messages = [{"role": "user", "content": "Hi"}]
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert companions(Cfg, "A b.") == [ids["A b."][-1:]]
    assert companions(Cfg, "A b.", negative="Be dull.") == [ids["Be dull."]]
    three = companions(Cfg, "A b.", negative=[7], negatives=["b.", messages])
    assert three == [(7,), ids["b."], tuple(chat["input_ids"])]
    assert companions(Cad, "A b.", without="A ") == [ids["b."]]
    assert companions(Cad, "A b.", instead="Be dull.") == [ids["Be dull."]]
    assert companions(Preadd, "A b.", prefix="Be dull.") == [ids["Be dull. A b."]]


@pytest.mark.parametrize("scale", [1.5, 3.0, 0.5])
@pytest.mark.parametrize("negative", [None, list(OTHER)])
def test_cfg_equals_hugging_face(scale: float, negative: list[int] | None) -> None:
    """Its logits processor, with and without a negative prompt."""
    model = two_prompts.model()
    ids = None if negative is None else torch.tensor([negative])
    theirs = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT)),
        do_sample=False,
        max_new_tokens=TOKENS,
        logits_processor=[UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, model, ids)],
        eos_token_id=None,
    )
    asked = {"scale": scale} if negative is None else {"scale": scale, "negative": negative}
    assert answer(cfg=asked) == theirs[0, len(PROMPT) :].tolist()
    assert answer(cfg=asked) != answer(min_p={})


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_cad_equals_two_caches_and_a_loop(alpha: float) -> None:
    expected = plainly(lambda t, own, other: (1 + alpha) * own - alpha * other)
    assert answer(cad={"alpha": alpha, "instead": list(OTHER)}) == expected
    assert expected != answer(min_p={})


@pytest.mark.parametrize("scale", [-1.0, -3.0, 0.7])
def test_preadd_equals_two_caches_and_a_loop(scale: float) -> None:
    expected = plainly(lambda t, own, other: own + scale * (other - own), other=(11, 12, *PROMPT))
    assert answer(preadd={"scale": scale, "prefix": [11, 12]}) == expected
    assert expected != answer(min_p={})


UNGUIDED: Mapping[str, dict[str, Any]] = {
    "cfg": {"scale": 1.0},
    "cad": {"alpha": 0.0, "instead": list(OTHER)},
    "preadd": {"scale": 0.0, "prefix": [11]},
}


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", UNGUIDED)
def test_weight_0_gives_the_unguided_answer(name: str, sampling: midstep.Sampling) -> None:
    assert answer(sampling, **{name: UNGUIDED[name]}) == answer(sampling, min_p={"p": 0.0})


def test_a_bias_counts_once_and_a_penalty_too() -> None:
    """Both stand in every row, and the weights of the rows add up to 1."""
    bias = {3: 2.5, 40: -3.0}

    def combined(t: int, own: Tensor, other: Tensor) -> Tensor:
        return 1.5 * own - 0.5 * other

    expected = plainly(combined, bias=bias)
    assert answer(bias=bias, cad={"instead": list(OTHER)}) == expected
    assert expected != plainly(combined)
    penalised = midstep.Sampling(temperature=0.0, frequency_penalty=30.0)
    said = answer(penalised, cad={"instead": list(OTHER)})
    assert len(set(said)) == len(said)


def test_two_guide_one_after_the_other() -> None:
    """In the order that the request names, which it must."""
    asked: dict[str, Any] = {"cfg": {"scale": 2.0}, "cad": {"alpha": 2.0, "instead": list(OTHER)}}
    with pytest.raises(ValueError, match=r'cad and cfg both guide the answer.*"order": \["cad", "cfg"\]'):
        answer(**asked)
    answers = {order: answer(**asked, order=list(order)) for order in (("cad", "cfg"), ("cfg", "cad"))}
    assert len({tuple(said) for said in [*answers.values(), answer(min_p={})]}) > 1


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"cfg": {"scale": float("nan")}}, "NaN|nan|finite"),
        ({"cfg": {"scale": 1e9}}, r"cfg\.scale = 1000000000\.0.*less than or equal to 100"),
        ({"cfg": {"scale": -1}}, "greater than or equal to 0"),
        ({"cfg": {"negative": ""}}, r"cfg\.negative"),
        ({"cfg": {"negative": []}}, "empty prompt; send a text, token ids or messages"),
        ({"cfg": {"negatives": [[1], []]}}, "empty prompt"),
        ({"cfg": {"negatives": [[1]] * 9}}, "at most 8"),
        ({"cfg": {"negative": "text"}}, "this server has none; send token ids"),
        ({"cfg": {"negative": [97]}}, r"token id 97; allowed: 0 to 96"),
        ({"cad": {}}, "none of without and instead is given; send exactly one"),
        ({"cad": {"without": "a", "instead": "b"}}, "both of without and instead is given; send exactly one"),
        ({"cad": {"without": ""}}, r"cad\.without"),
        ({"cad": {"without": "a"}}, "needs a tokenizer, and this server has none; send token ids"),
        ({"cad": {"alpha": -0.1, "instead": [1]}}, "greater than or equal to 0"),
        ({"cad": {"instead": [1], "plausible": 1.5}}, "less than or equal to 1"),
        ({"preadd": {}}, r"preadd\.prefix.*field required"),
        ({"preadd": {"prefix": ""}}, r"preadd\.prefix"),
        ({"preadd": {"prefix": []}}, r"prefix = \[\] is empty; send a text or token ids"),
        ({"preadd": {"prefix": [1], "scale": -101}}, "greater than or equal to -100"),
        ({"preadd": {"prefix": [1], "before": "a"}}, "needs a tokenizer"),
        ({"cfg": {"negative": "a" * 1_000_000}}, r"65536.*limits\.json_bytes"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_way_out(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        answer(**asked)
