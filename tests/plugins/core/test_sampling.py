"""The request's own sampling parameters, against Hugging Face's warpers and by hand."""

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from midstep.rows import Ragged
from midstep.sampling import cut, nucleus, penalise, temper

OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def own_cut(logits: torch.Tensor, **values: float) -> torch.Tensor:
    columns = {**OFF, **values}
    count = len(logits)
    return cut(
        logits, torch.full((count,), int(columns["top_k"])), torch.full((count,), columns["top_p"]),
        torch.full((count,), columns["min_p"]),
    )  # fmt: skip


@pytest.mark.parametrize("vocabulary", [7, 63, 1000])
def test_each_cut_equals_hugging_face(vocabulary: int) -> None:
    logits = torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    ids = torch.zeros(5, 1, dtype=torch.int64)
    for k in (1, 3, 6):
        assert torch.equal(own_cut(logits, top_k=k), TopKLogitsWarper(k)(ids, logits))
    for p in (0.1, 0.5, 0.9):
        assert torch.equal(own_cut(logits, top_p=p), TopPLogitsWarper(p)(ids, logits))
        assert torch.equal(own_cut(logits, min_p=p), MinPLogitsWarper(p)(ids, logits))
    both = TopPLogitsWarper(0.7)(ids, TopKLogitsWarper(5)(ids, logits))
    assert torch.equal(own_cut(logits, top_k=5, top_p=0.7), both)
    assert torch.equal(own_cut(logits), logits)


def test_top_k_keeps_every_token_tied_with_the_kth() -> None:
    row = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    assert own_cut(row, top_k=2).isfinite().tolist() == [[False, True, True, True, True, False]]


def test_top_p_keeps_every_token_tied_with_the_one_that_crosses() -> None:
    """Hugging Face and vLLM keep one of the three that tie, whichever a sort puts first."""
    row = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])  # probabilities .059 .437 .161 .161 .161 .022
    assert own_cut(row, top_p=0.55).isfinite().tolist() == [[False, True, True, True, True, False]]
    assert own_cut(row, top_p=0.43).isfinite().tolist() == [[False, True, False, False, False, False]]
    assert TopPLogitsWarper(0.55)(torch.zeros(1, 1).long(), row).isfinite().sum() == 2


def test_the_lowest_logit_that_top_p_leaves() -> None:
    """By hand: 0.644, 0.237, 0.087, 0.032; off at 1; the best one at 0."""
    row = torch.tensor([[1.0, 2.0, 0.0, -1.0]]).expand(4, -1)
    assert nucleus(row, torch.tensor([0.9, 0.6, 1.0, 0.0])).tolist() == [0.0, 2.0, -float("inf"), 2.0]
    masked = torch.tensor([[1.0, -float("inf"), 0.0]])
    assert nucleus(masked, torch.tensor([0.99])).tolist() == [0.0]


def test_what_stays_does_not_depend_on_the_order_of_tokens_or_rows() -> None:
    logits = (torch.randn(6, 500, generator=torch.Generator().manual_seed(4)) * 3).round() / 2
    k, p, min_p = (
        torch.tensor([0, 9, 0, 40, 0, 7]),
        torch.tensor([0.9, 1, 0.5, 0.7, 1, 0.3]),
        torch.tensor([0, 0.1] * 3),
    )
    expected = cut(logits, k, p, min_p)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(5))
    assert torch.equal(cut(logits[:, order], k, p, min_p), expected[:, order])
    for row in range(6):
        one = slice(row, row + 1)
        assert torch.equal(cut(logits[one], k[one], p[one], min_p[one]), expected[one])


def test_top_p_is_a_share_of_what_top_k_left_and_min_p_of_the_best() -> None:
    """By hand: of .5 .25 .125 .125, top-k leaves two of 2/3 and 1/3."""
    row = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    assert own_cut(row, top_k=2, top_p=0.66).isfinite().sum() == 1
    assert own_cut(row, top_k=2, top_p=0.67).isfinite().sum() == 2
    assert own_cut(row, top_p=0.76).isfinite().sum() == 4
    assert own_cut(row, top_p=0.76, min_p=0.3).isfinite().sum() == 2


def test_masked_tokens_stay_masked_and_the_best_token_always_stays() -> None:
    row = torch.tensor([[-torch.inf, 5.0, -torch.inf, 1.0]])
    assert own_cut(row, top_k=3, top_p=1e-9, min_p=1.0).isfinite().tolist() == [[False, True, False, False]]
    assert own_cut(row, top_k=4).isfinite().tolist() == [[False, True, False, True]]


def test_penalties_by_hand() -> None:
    """Prompt 0 1, generated 1 2 2: the repetition penalty knows all three tokens, the others what was generated."""
    logits = torch.tensor([[2.0, -2.0, 4.0, 1.0]])
    history = Ragged(torch.tensor([[0, 1, 1, 2, 2, -1]]), torch.tensor([5]))
    found = penalise(logits, history, torch.tensor([3]), torch.tensor([2.0]), torch.tensor([0.25]), torch.tensor([0.5]))
    assert found.tolist() == [[1.0, -4.0 - 0.5 - 0.25, 2.0 - 1.0 - 0.25, 1.0]]


def test_the_repetition_penalty_and_the_temperature_equal_hugging_face() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 3
    ids = torch.tensor([[1, 2, 2, 9], [0, 0, 0, 0], [49, 3, 2, 1]])
    zero, ones = torch.zeros(3), torch.ones(3)
    found = penalise(logits, Ragged(ids, torch.tensor([4, 4, 4])), torch.tensor([2, 0, 4]), 1.3 * ones, zero, zero)
    assert torch.equal(found, RepetitionPenaltyLogitsProcessor(1.3)(ids, logits))
    assert torch.equal(temper(logits, 0.7 * ones), TemperatureLogitsWarper(0.7)(ids, logits))
    assert torch.equal(temper(logits, zero), logits)
