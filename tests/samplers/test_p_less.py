"""P-less: its definition."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from midstep_p_less import PLess
from midstep_p_less.reference import keep

INF = float("inf")


def _logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def _plain(rows: int = 1) -> torch.Tensor:
    return torch.zeros(rows, dtype=torch.bool)


def _norm(rows: int = 1) -> torch.Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_it_keeps_what_is_at_least_as_likely_as_a_collision() -> None:
    """B15.p_less: c = .365 leaves one token of four, c = .345 two of three."""
    mask = keep(_logits(0.5, 0.3, 0.15, 0.05), _plain())
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, False, False, False]]
    assert keep(_logits(0.4, 0.35, 0.25), _plain()).tolist() == [[True, True, False]]


def test_norm_takes_the_agreement_by_chance_away() -> None:
    """(4 * .365 - 1) / 3 = .1533 reaches .3 and not .15; (3 * .345 - 1) / 2 = .0175 reaches all."""
    assert keep(_logits(0.5, 0.3, 0.15, 0.05), _norm()).tolist() == [[True, True, False, False]]
    assert keep(_logits(0.4, 0.35, 0.25), _norm()).tolist() == [[True] * 3]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("vocabulary", [1, 2, 4, 997, 151936])
@pytest.mark.parametrize("value", [0.0, 0.1, 123.456])
def test_a_uniform_row_keeps_everything(value: float, vocabulary: int, norm: bool) -> None:
    """B15.p_less(uniform 4) and longer ones: p and c are the same number, up to a rounding."""
    assert keep(torch.full((1, vocabulary), value), torch.tensor([norm])).all()


def test_the_tolerance_is_one_in_a_million() -> None:
    """In a row of equals c is their p: a token 5e-7 less likely stays, one 2e-6 less likely does not."""
    logits = torch.zeros(2, 1000)
    logits[:, 7] = torch.tensor([-5e-7, -2e-6])
    mask = keep(logits, _plain(2))
    assert mask[:, 7].tolist() == [True, False]
    assert mask.sum(-1).tolist() == [1000, 999]


def _numpy(x: np.ndarray, norm: bool) -> np.ndarray:
    """Work out the authors' rule, with llama.cpp's care for masked tokens, in float64."""
    finite = np.isfinite(x)
    p = np.where(finite, np.exp(x - x.max()), 0)
    p /= p.sum()
    c, count = (p**2).sum(), finite.sum()
    return finite & (p >= ((count * c - 1) / (count - 1) if norm else c))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 10.0])
def test_it_equals_the_comparison_of_probabilities(scale: float, norm: bool) -> None:
    """Rows of 500 with a third of the tokens masked, from nearly uniform to nearly certain."""
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(0)) * scale
    logits[:, ::3] = -INF
    mask = keep(logits, torch.full((20,), norm))
    for row, x in zip(mask, logits.double().numpy(), strict=True):
        assert row.tolist() == _numpy(x, norm).tolist()


def test_norm_never_keeps_less() -> None:
    """And somewhere more."""
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(1)) * 2
    plain, relaxed = keep(logits, _plain(50)), keep(logits, _norm(50))
    assert not (plain & ~relaxed).any()
    assert (relaxed & ~plain).any()


def test_the_best_token_and_its_ties_stay() -> None:
    """However sure or unsure the row is."""
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(2)) * torch.linspace(0.01, 30, 50)[:, None]
    logits[:, 17] = logits[:, 200] = logits.amax(-1)
    for norm in (_plain(50), _norm(50)):
        assert keep(logits, norm)[:, [17, 200]].all()


@pytest.mark.parametrize("norm", [False, True])
def test_a_masked_token_never_stays_and_counts_for_nothing(norm: bool) -> None:
    """A row with one token keeps it; a row without a token keeps none."""
    logits = torch.tensor([[-INF, 7.25, -INF], [-INF] * 3, [-INF, 0.0, 0.0]])
    mask = keep(logits, torch.full((3,), norm))
    assert mask.tolist() == [[False, True, False], [False] * 3, [False, True, True]]


def test_a_forced_token_stays() -> None:
    """Beside +inf there are no probabilities, and everything that is there stays."""
    for norm in (_plain(), _norm()):
        assert keep(torch.tensor([[0.0, INF, -INF]]), norm).tolist() == [[True, True, False]]


def test_each_row_has_its_own_norm() -> None:
    """Two rows of one distribution."""
    logits = _logits(0.5, 0.3, 0.15, 0.05).expand(2, -1)
    assert keep(logits, torch.tensor([False, True])).sum(-1).tolist() == [1, 2]


@pytest.mark.parametrize("vocabulary", [1, 63, 1000, 151936])
def test_a_row_does_not_depend_on_the_rows_beside_it(vocabulary: int) -> None:
    """To the bit, at sizes where torch splits a sum among threads too."""
    logits = torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(3))
    norm = torch.tensor([False, True, False, True, False])
    together = keep(logits, norm)
    for rows in (slice(0, 1), slice(4, 5), torch.tensor([3, 1])):
        assert torch.equal(keep(logits[rows], norm[rows]), together[rows])


def test_bfloat16_is_read_as_float32() -> None:
    """The probabilities are not rounded to bfloat16."""
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(4)).bfloat16()
    assert torch.equal(keep(logits, _plain(3)), keep(logits.float(), _plain(3)))


def test_an_empty_batch_keeps_nothing() -> None:
    """R = 0 is a batch like any other."""
    assert keep(torch.zeros(0, 100), _plain(0)).shape == (0, 100)


def test_it_has_no_number_to_set() -> None:
    """What is not a yes or a no is refused at admission."""
    assert PLess.Params().model_dump() == {"norm": False}
    for wrong in ({"norm": 1}, {"norm": 0.5}, {"p": 0.1}):
        with pytest.raises(ValidationError):
            PLess.Params.model_validate(wrong)
