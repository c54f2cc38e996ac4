"""XTC: its definition, its coin, and the ids it looks out for."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
import torch
from kernel_cases import KINDS, rows_of
from torch import Tensor
from toy import admission, call, rows
from transformers import PreTrainedTokenizerFast

import midstep
from midstep.rows import Ragged
from midstep_xtc import Xtc
from midstep_xtc.reference import keep

INF = float("inf")
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])
NEWLINE, END, VOCABULARY = 1, 2, 61


def _kept(logits: Tensor, threshold: float | Tensor = 0.1, *, special: list[int] | None = None) -> Tensor:
    """Apply the rule to every row."""
    ids = torch.tensor(special or [], dtype=torch.int64).expand(len(logits), -1)
    column = torch.as_tensor(threshold, dtype=torch.float32).expand(len(logits))
    return keep(logits, column, torch.ones(len(logits), dtype=torch.bool), ids)


@pytest.mark.parametrize(("threshold", "removed"), [(0.1, 1), (0.05, 2), (0.6, 0)])
def test_the_top_choices_but_the_least_likely_are_removed(threshold: float, removed: int) -> None:
    """Probabilities .550 .334 .074 .027 .010 …; goldens B6.xtc.1, B6.xtc.05 and B6.xtc.6_noop."""
    mask = _kept(LOGITS, threshold)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[False] * removed + [True] * (8 - removed)]


def _llama(x: np.ndarray, threshold: float) -> np.ndarray:
    """Return what llama.cpp's rule keeps once its coin said yes: sorted, ties by id, in float64."""
    order = np.lexsort((np.arange(len(x)), -x))
    p = np.exp(x - x.max())
    p /= p.sum()
    above = int((p[order] >= threshold).sum())
    mask = np.isfinite(x)
    mask[order[: max(above - 1, 0)]] = False
    return mask


@pytest.mark.parametrize("threshold", [0.003, 0.02, 0.1, 0.4])
@pytest.mark.parametrize("kind", ["plain", "shifted", "peaked", "masked", "one_hot", "ties"])
def test_it_is_llama_cpps_rule(kind: str, threshold: float) -> None:
    """Of equally likely tokens the highest id counts as the least likely."""
    logits = rows_of(kind, 5, 200, "cpu")
    expected = np.stack([_llama(x, threshold) for x in logits.double().numpy()])
    np.testing.assert_array_equal(_kept(logits, threshold).numpy(), expected)


def test_of_equal_top_choices_the_last_stays() -> None:
    """Four of a quarter each; two of a half each, at the threshold."""
    assert _kept(torch.zeros(1, 4), 0.2).tolist() == [[False, False, False, True]]
    assert _kept(torch.tensor([[5.0, -INF, 5.0]]), 0.5).tolist() == [[False, False, True]]


def test_one_top_choice_stays() -> None:
    """Two are needed: a certain row and one above 0.5 are left alone."""
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, -INF]])
    assert _kept(logits, torch.tensor([0.1, 0.51])).tolist() == [[True] * 3, [True, True, False]]


def test_what_the_coin_spares_is_left_alone() -> None:
    """Each row has its own."""
    none = torch.zeros(2, 0, dtype=torch.int64)
    mask = keep(LOGITS.expand(2, -1), torch.tensor([0.1, 0.1]), torch.tensor([False, True]), none)
    assert mask[0].all()
    assert mask[1].tolist() == _kept(LOGITS)[0].tolist()


@pytest.mark.parametrize(("special", "spared"), [([0], True), ([7, 1], True), ([2], False), ([3, -1], False)])
def test_a_row_where_a_special_token_would_be_removed_is_left_alone(special: list[int], spared: bool) -> None:
    """At 0.05 the tokens 0 and 1 would go and 2, the least likely top choice, would not."""
    assert bool(_kept(LOGITS, 0.05, special=special).all()) is spared


@pytest.mark.parametrize("threshold", [1e-6, 0.1, 1.0])
def test_a_masked_token_never_stays(threshold: float) -> None:
    """Nor does it count, and a row without any token keeps none."""
    logits = torch.tensor([[-INF, 0.0, -INF, 0.0, -3.0], [-INF] * 5])
    mask = _kept(logits, threshold)
    assert not mask[logits.isneginf()].any()
    assert mask[0].any()
    there = torch.tensor([1, 3, 4])
    assert torch.equal(mask[:1, there], _kept(logits[:1, there], threshold))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_rows_beside_it(kind: str) -> None:
    """To the bit, with the threshold on one of its tokens."""
    logits = rows_of(kind, 5, 32001, "cpu")
    threshold = logits.softmax(-1).topk(3).values[:, -1].clamp_min(1e-30)
    together = _kept(logits, threshold)
    for row in range(5):
        assert torch.equal(_kept(logits[row : row + 1], threshold[row : row + 1]), together[row : row + 1])


def test_bfloat16_is_read_as_float32() -> None:
    """The probabilities are not rounded to bfloat16."""
    logits = (rows_of("plain", 5, 300, "cpu") * 1.37).bfloat16()
    assert torch.equal(_kept(logits, 0.02), _kept(logits.float(), 0.02))


def test_an_empty_batch_keeps_nothing() -> None:
    """R = 0 is a batch like any other."""
    assert _kept(torch.zeros(0, 50)).shape == (0, 50)


def _call(count: int, probability: float, position: int = 0) -> midstep.Rows:
    params = SimpleNamespace(threshold=torch.full((count,), 0.1), probability=torch.full((count,), probability))
    none = Ragged(torch.zeros(count, 0, dtype=torch.int64), torch.zeros(count, dtype=torch.int64))
    at, seeds = torch.full((count,), position), torch.arange(count) + 5000
    return midstep.Rows(params, at, seeds, torch.ones(count, dtype=torch.bool), ids={"special": none})


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_the_coin_falls_as_often_as_asked(probability: float) -> None:
    """Over 4,000 seeds, within four standard deviations; never at 0, always at 1."""
    removed = ~Xtc().keep(LOGITS.expand(4000, -1), _call(4000, probability))[:, 0]
    spread = (probability * (1 - probability) / 4000) ** 0.5
    assert removed.double().mean().item() == pytest.approx(probability, abs=4 * spread)


def test_the_coin_belongs_to_the_request_and_its_position() -> None:
    """The same again for a repeated call, in any batch; another one at another position."""
    logits = LOGITS.expand(200, -1)
    first, again, later = (Xtc().keep(logits, _call(200, 0.5, position)) for position in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    alone = replace(_call(1, 0.5, 3), seed=torch.tensor([5017]))
    assert torch.equal(Xtc().keep(LOGITS, alone), first[17:18])


def _tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of a few words, one of which is the newline."""
    words = tokenizers.models.WordLevel({"?": 0, "\n": NEWLINE, "</s>": END, "a": 3}, unk_token="?")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(words), eos_token="</s>")


def test_the_newline_and_the_end_tokens_are_special() -> None:
    """As ids inside the vocabulary; none where they were not asked for."""
    model = midstep.Model(vocabulary=VOCABULARY, tokenizer=_tokenizer(), ends=(END, 10**6))
    assert Xtc.prepare(Xtc.Params(keep_special=True), (), model).ids == {"special": (NEWLINE, END)}
    assert Xtc.prepare(Xtc.Params(), (), replace(model, tokenizer=None)).ids == {"special": ()}


def test_keep_special_without_a_tokenizer_is_refused() -> None:
    """With the way out."""
    with pytest.raises(ValueError, match=r"xtc: keep_special = true needs .* leave keep_special at false"):
        admission(xtc={"keep_special": True})


def test_requests_with_and_without_special_tokens_share_a_call() -> None:
    """The end token is the best of two: one request keeps it, the other does not, and only the other is changed."""
    pipeline = midstep.Pipeline(torch.device("cpu"))
    asked = {"threshold": 0.2, "probability": 1.0}
    plain = admission("plain", midstep.Sampling(temperature=0.0), xtc=asked)
    model = midstep.Model(vocabulary=VOCABULARY, tokenizer=_tokenizer(), ends=(END,))
    parsed = midstep.parse(midstep.request(trace=True, xtc={**asked, "keep_special": True}))
    assert parsed is not None
    careful = midstep.admit(parsed, (3, 4, 5), midstep.Sampling(temperature=0.0), model, seed=1)
    assert careful is not None
    logits = rows(1, vocabulary=VOCABULARY).expand(2, -1).clone()
    logits[:, [END, 40]] = torch.tensor([30.0, 29.9])
    tokens, _ = call(pipeline, [careful.stamped("careful"), plain], logits)
    assert tokens == [END, 40]


@pytest.mark.parametrize(
    "bad", [{"threshold": 0.0}, {"threshold": 1.1}, {"probability": -0.1}, {"probability": 2.0}, {"keep_special": 1}]
)
def test_a_bad_xtc_request_is_refused(bad: dict[str, float]) -> None:
    """In one line with the parameter and what is allowed."""
    with pytest.raises(ValueError, match=rf"xtc\.{next(iter(bad))} = .*threshold \(float, > 0, <= 1, default 0.1\)"):
        midstep.request(xtc=bad)
