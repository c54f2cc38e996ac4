"""Top-a's definition."""

import pytest
import torch

from midstep_top_a.reference import keep

INF = float("inf")


def test_it_keeps_what_is_likely_enough_for_the_square_of_the_best() -> None:
    """0.2 * 0.5^2 = 0.05 and 0.2 * 0.9^2 = 0.162."""
    p = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04], [0.9, 0.04, 0.03, 0.02, 0.01]])
    mask = keep(p.log(), torch.full((2,), 0.2), torch.full((2,), 2.0))
    assert mask.tolist() == [[True, True, True, True, False], [True, False, False, False, False]]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_it_equals_the_comparison_of_probabilities(power: float) -> None:
    """In float64; a tenth, a half, and all of the power."""
    logits = torch.randn(30, 500, generator=torch.Generator().manual_seed(0)) * 3
    a = torch.tensor([0.1, 0.5, 1.0]).repeat(10)
    p = logits.double().softmax(-1)
    expected = p >= a.double()[:, None] * p.amax(-1, keepdim=True) ** power
    expected.scatter_(1, p.argmax(-1, keepdim=True), True)
    assert torch.equal(keep(logits, a, torch.full((30,), power)), expected)


def test_power_1_and_a_1_keep_the_best_token_and_its_ties() -> None:
    """Whatever lse was rounded to; a = 0 keeps everything."""
    logits = torch.tensor([[1.0, 0.9999999, 1.0, -80.0]]).expand(3, -1)
    mask = keep(logits, torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 4.0]))
    assert mask.tolist() == [[True, False, True, False], [True] * 4, [True, True, True, False]]


@pytest.mark.parametrize("a", [0.0, 1.0])
def test_a_masked_token_never_stays(a: float) -> None:
    """Not even where everything else does."""
    logits = torch.tensor([[-INF, 0.0, -INF, 0.0]])
    assert keep(logits, torch.tensor([a]), torch.tensor([2.0])).tolist() == [[False, True, False, True]]
