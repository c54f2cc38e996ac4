"""DRY: its definition, its breakers, and its effect on an answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from toy import call
from transformers import PreTrainedTokenizerFast

import midstep
from midstep import testing
from midstep_dry import Dry
from midstep_dry.reference import HEAVIEST, penalise

INF = float("inf")
ABC = [0, 1, 2, 2, 1, 2, 3, 0, 1, 2]  # "abccbcyabc"


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters, but for the blank line."""
    vocabulary = {text: i for i, text in enumerate(["?", *'abcy :"*', "\n", "\n\n"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?")


class WithTokenizer(Dry):
    """DRY on a server that has a tokenizer."""

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Prepare with it."""
        return super().prepare(params, prompt, replace(model, tokenizer=tokenizer()))


def penalties(context: Sequence[int], breakers: Sequence[int] = (), vocabulary: int = 8, **given: float) -> Tensor:
    """Return what each token loses, [V]."""
    p = {"multiplier": 0.8, "base": 1.75, "allowed_length": 2, "span": 0, "max_match": 50, **given}
    ids = torch.tensor([[*context, -1, -1]])
    result = penalise(
        torch.zeros(1, vocabulary),
        ids,
        torch.tensor([len(context)]),
        torch.tensor([breakers], dtype=torch.int64),
        torch.tensor([p["multiplier"]]),
        torch.tensor([p["base"]]),
        *(torch.tensor([int(p[name])]) for name in ("allowed_length", "span", "max_match")),
    )
    return -result[0]


def in_python(context: Sequence[int], breakers: Sequence[int], **p: Any) -> dict[int, float]:
    """Work the penalties out as the original class does, one token after the other."""
    context = context[-p["span"] :] if p["span"] else context
    longest: dict[int, int] = {}
    for i in range(len(context) - 1):
        n = 0
        while n < p["max_match"] and n <= i and context[i - n] == context[-1 - n] and context[-1 - n] not in breakers:
            n += 1
        if n and context[i + 1] not in breakers:
            longest[context[i + 1]] = max(longest.get(context[i + 1], 0), n)
    return {
        token: p["multiplier"] * p["base"] ** (n - p["allowed_length"])
        for token, n in longest.items()
        if n >= p["allowed_length"]
    }


def test_it_lowers_what_would_prolong_a_repetition() -> None:
    """Golden B7.dry: of "abccbcyabc", c would make a match of three longer, y one of two, b one of one only."""
    assert penalties(ABC).tolist() == pytest.approx([0, 0, 1.4, 0.8, 0, 0, 0, 0])


def test_no_match_extends_over_a_breaker() -> None:
    """Golden B7.dry_breaker_b: with b a breaker every match has one token, and b itself is never lowered."""
    assert not penalties(ABC, [1]).any()
    assert penalties(ABC, [1], allowed_length=1).tolist() == pytest.approx([0, 0, 0.8, 0.8, 0, 0, 0, 0])


def test_a_context_that_ends_in_a_breaker_costs_nothing() -> None:
    """The last token, c, is one."""
    assert not penalties(ABC, [2], allowed_length=1).any()


@pytest.mark.parametrize("seed", range(60))
def test_it_equals_the_plain_loop(seed: int) -> None:
    """On random contexts of few tokens, so that matches are long and many."""
    random = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=random))

    context = torch.randint(0, whole(1, 6), (whole(1, 80),), generator=random).tolist()
    breakers = torch.randint(0, 8, (whole(0, 3),), generator=random).tolist()
    p = {"multiplier": 0.75, "base": 1.0 + whole(0, 8) / 8, "allowed_length": whole(1, 4)}
    p |= {"span": whole(0, 2) * whole(1, 90), "max_match": whole(1, 20)}
    expected = torch.zeros(8, dtype=torch.float64)
    for token, penalty in in_python(context, breakers, **p).items():
        expected[token] = penalty
    assert torch.equal(penalties(context, breakers, **p), expected.float())


def test_the_longest_match_counts_once() -> None:
    """Of two places that would be continued by the same token."""
    assert penalties([1, 2, 3, 0, 2, 3, 4, 1, 2, 3]).tolist() == pytest.approx([1.4, 0, 0, 0, 0.8, 0, 0, 0])


def test_a_match_may_overlap_the_end() -> None:
    """One token repeated n times matches itself shifted by one: n - 1 tokens."""
    assert float(penalties([5] * 6)[5]) == pytest.approx(0.8 * 1.75**3)


def test_max_match_caps_the_length() -> None:
    """And with it the penalty; an allowed length above it turns the rule off."""
    assert float(penalties([5] * 30, max_match=4)[5]) == pytest.approx(0.8 * 1.75**2)
    assert not penalties([5] * 30, max_match=4, allowed_length=5).any()


def test_the_range_limits_what_is_searched() -> None:
    """Ten tokens hold a match of three, nine one of two in its place, seven only the other one, five none."""
    assert penalties(ABC, span=9).tolist() == pytest.approx([0, 0, 0.8, 0.8, 0, 0, 0, 0])
    assert penalties(ABC, span=7).tolist() == pytest.approx([0, 0, 0, 0.8, 0, 0, 0, 0])
    assert not penalties(ABC, span=5).any()
    assert torch.equal(penalties(ABC, span=10), penalties(ABC))
    assert torch.equal(penalties(ABC, span=4000), penalties(ABC))


def test_a_penalty_is_never_infinite() -> None:
    """Whatever the base; so a row keeps its last token, and a multiplier of 0 is off."""
    for multiplier in (1.0, 3e38):
        found = penalties([5] * 300, base=3e38, max_match=256, multiplier=multiplier)
        assert float(found[5]) == pytest.approx(HEAVIEST)
    assert not penalties([5] * 300, base=3e38, max_match=256, multiplier=0.0).any()


def test_a_masked_token_stays_masked_and_nothing_else_moves() -> None:
    """-inf less a penalty is -inf; the other logits keep every bit."""
    logits = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    logits[0, 2], logits[0, 5] = -INF, -0.0
    column = {name: torch.tensor([value]) for name, value in {"multiplier": 0.8, "base": 1.75}.items()}
    whole = (torch.tensor([value]) for value in (2, 0, 50))
    none = torch.zeros(1, 0, dtype=torch.int64)
    result = penalise(logits, torch.tensor([ABC]), torch.tensor([10]), none, *column.values(), *whole)
    assert float(result[0, 2]) == -INF
    assert float(result[0, 3]) == pytest.approx(float(logits[0, 3]) - 0.8)
    rest = [0, 1, 4, 5, 6, 7]
    assert torch.equal(result[0, rest].view(torch.int32), logits[0, rest].view(torch.int32))


def test_ids_outside_the_vocabulary_match_but_are_not_lowered() -> None:
    """A prompt may hold placeholders that no logit stands for."""
    assert penalties([9, 9, 9, 9, 9]).tolist() == [0.0] * 8
    assert float(penalties([9, 8, 1, 9, 8])[1]) == pytest.approx(0.8)


@pytest.mark.parametrize("context", [[], [3]])
def test_a_context_without_a_past_costs_nothing(context: list[int]) -> None:
    """No token, or one."""
    assert not penalties(context, allowed_length=1).any()


def test_each_row_has_its_own_context_and_parameters() -> None:
    """Three in one call, as they are alone."""
    contexts, settings = (ABC, [5] * 6, [4, 4]), ((0.8, 1.75, 2, 0, 50), (0.5, 2.0, 1, 4, 2), (3.0, 1.0, 1, 0, 1))
    ids = torch.full((3, 12), -1)
    for row, context in enumerate(contexts):
        ids[row, : len(context)] = torch.tensor(context)
    columns = [torch.tensor(column) for column in zip(*settings, strict=True)]
    lengths = torch.tensor([len(context) for context in contexts])
    together = penalise(torch.zeros(3, 8), ids, lengths, torch.tensor([[1], [-1], [-1]]), *columns)
    names = ("multiplier", "base", "allowed_length", "span", "max_match")
    for row, context in enumerate(contexts):
        breakers = [1] if row == 0 else []
        alone = penalties(context, breakers, **dict(zip(names, settings[row], strict=True)))
        assert torch.equal(-together[row], alone)


def test_bfloat16_is_read_as_float32() -> None:
    """The result is float32."""
    logits = torch.randn(1, 8).bfloat16()
    rest = torch.tensor([ABC]), torch.tensor([10]), torch.zeros(1, 0), torch.tensor([0.8]), torch.tensor([1.75])
    whole = [torch.tensor([value]) for value in (2, 0, 50)]
    assert torch.equal(penalise(logits, *rest, *whole), penalise(logits.float(), *rest, *whole))


def test_a_breaker_is_the_last_token_of_its_text_after_a_letter() -> None:
    """Two texts with the same last token are one breaker."""
    made = tokenizer()
    params = Dry.Params(breakers=["\n", ":", "cab", "b", "\n\n"])
    prepared = Dry.prepare(params, (), midstep.Model(vocabulary=20, tokenizer=made))
    assert made.convert_ids_to_tokens(list(prepared.ids["breakers"])) == ["\n", ":", "b", "\n\n"]


def test_without_a_tokenizer_only_no_breakers_will_do() -> None:
    """The refusal says so."""
    model = midstep.Model(vocabulary=20)
    with pytest.raises(ValueError, match=r"no tokenizer; send breakers = \[\]"):
        Dry.prepare(Dry.Params(), (), model)
    assert Dry.prepare(Dry.Params(breakers=[]), (), model).ids == {"breakers": ()}


@pytest.mark.parametrize("breakers", [[""], ["a" * 65], ["a"] * 33, [7]])
def test_breakers_are_bounded_texts(breakers: list[Any]) -> None:
    """Neither empty nor long nor many."""
    with pytest.raises(ValueError, match="breakers"):
        midstep.request(dry={"breakers": breakers})


def test_it_keeps_the_laws() -> None:
    """On a server that has a tokenizer, as its default breakers need one."""
    testing.check(WithTokenizer)


def admit(key: str, prompt: Sequence[int], **params: Any) -> midstep.Admission:
    """Admit a greedy request on a server that has a tokenizer."""
    asked = midstep.parse(midstep.request(dry=params))
    assert asked is not None
    model = midstep.Model(vocabulary=12, tokenizer=tokenizer())
    admitted = midstep.admit(asked, prompt, midstep.Sampling(temperature=0.0), model, seed=1)
    assert admitted is not None
    return admitted.stamped(key)


def test_an_answer_stops_repeating_itself() -> None:
    """The prompt counts: c after "ab", and a after "bc", would prolong a match of two, and y is said in their place."""
    one = admit("a", (1, 2, 3), multiplier=2.0)
    pipeline, said = midstep.Pipeline("cpu", max_length=64), [1, 2, 3]
    while len(said) < 9:
        logits = torch.zeros(1, 12)
        logits[0, said[-1] % 3 + 1], logits[0, 4] = 3.0, 1.5
        said += call(pipeline, [one], logits, len(said) - 3)[0]
    assert said == [1, 2, 3, 1, 2, 4, 2, 3, 4]


def test_requests_with_and_without_breakers_stand_side_by_side() -> None:
    """After "abcab", c is lowered unless b is a breaker."""
    breakers: dict[str, list[str]] = {"a": [], "b": ["b", ":"], "c": ["y"]}
    logits = torch.zeros(3, 12)
    logits[:, 3], logits[:, 4] = 1.0, 0.5
    many = [admit(key, (1, 2, 3, 1, 2), breakers=texts) for key, texts in breakers.items()]
    assert call(midstep.Pipeline("cpu", max_length=64), many, logits)[0] == [4, 3, 4]
