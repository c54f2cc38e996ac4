"""Min-p: its definition."""

import math

import pytest
import torch

from midstep_min_p.reference import keep

INF = float("inf")
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])


def test_it_keeps_what_is_at_least_p_times_as_likely_as_the_best() -> None:
    """Probabilities .550 .334 .074 .027 .010 .004 .001 .001; a tenth of the best is .055."""
    mask = keep(LOGITS, torch.tensor([0.1]))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, True, False, False, False, False, False]]


@pytest.mark.parametrize("p", [0.01, 0.05, 0.1, 0.5, 0.9])
def test_it_equals_the_comparison_of_probabilities(p: float) -> None:
    """The threshold on logits is that on probabilities, without a softmax."""
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(0)) * 3
    probabilities = logits.double().softmax(-1)
    expected = probabilities >= p * probabilities.amax(-1, keepdim=True)
    assert torch.equal(keep(logits, torch.full((20,), p)), expected)


def test_a_token_at_the_threshold_stays() -> None:
    """And the next smaller float does not."""
    log_p = torch.tensor([0.2]).log()
    below = torch.nextafter(2.0 + log_p, torch.tensor([-INF]))
    logits = torch.cat([torch.tensor([2.0]), 2.0 + log_p, below])[None]
    assert keep(logits, torch.tensor([0.2])).tolist() == [[True, True, False]]


def test_each_row_has_its_own_p() -> None:
    """0 keeps everything, 1 the best token and its ties."""
    logits = torch.tensor([[1.0, 0.0, 1.0, -80.0]]).expand(3, -1)
    mask = keep(logits, torch.tensor([0.0, 0.3, 1.0]))
    assert mask.tolist() == [[True] * 4, [True, True, True, False], [True, False, True, False]]


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_a_masked_token_never_stays(p: float) -> None:
    """Not even where everything else does, and not in a row that is masked throughout."""
    logits = torch.tensor([[-INF, 0.0, -INF], [-INF] * 3])
    assert keep(logits, torch.full((2,), p)).tolist() == [[False, True, False], [False] * 3]


def test_p_0_is_no_rule_at_all() -> None:
    """Beside a token that is forced with +inf too."""
    logits = torch.tensor([[INF, 0.0, -INF], [-3e38, 3e38, 0.0]])
    assert keep(logits, torch.zeros(2)).tolist() == [[True, True, False], [True, True, True]]


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    """To the bit: with p at the edge, a last bit would show."""
    random = torch.Generator().manual_seed(1)
    p = torch.rand(37, generator=random)
    best = torch.randn(37, 1, generator=random) * 10
    logits = torch.cat([best, best + p.log()[:, None], best - 50], 1)
    together = keep(logits, p)
    assert together[:, :2].all()
    for row in range(37):
        assert torch.equal(keep(logits[row : row + 1], p[row : row + 1]), together[row : row + 1])


def test_bfloat16_is_read_as_float32() -> None:
    """The threshold is not rounded to bfloat16."""
    logits = (LOGITS * math.pi).bfloat16()
    p = torch.tensor([0.03])
    assert torch.equal(keep(logits, p), keep(logits.float(), p))
