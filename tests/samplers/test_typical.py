"""Locally typical sampling: its definition."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import TypicalLogitsWarper

from midstep_typical import Typical
from midstep_typical.reference import keep

INF = float("inf")
# Probabilities .550 .334 .074 .027 .010 .004 .001 .001, entropy 1.061598; surprises .598 1.098 2.598 3.598 and so on.
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])


def _kept(logits: Tensor, mass: float, min_keep: int = 1) -> list[int]:
    mask = keep(logits, torch.tensor([mass]), torch.tensor([min_keep]))
    assert mask.dtype == torch.bool
    return mask[0].nonzero()[:, 0].tolist()


def test_it_keeps_the_most_typical_tokens_of_the_mass() -> None:
    """B3.typical.5_keep and B3.typical.9_keep."""
    assert _kept(LOGITS, 0.5) == [0, 1]
    assert _kept(LOGITS, 0.9) == [0, 1, 2]


def test_the_order_is_that_of_the_distance_from_the_entropy() -> None:
    """B3.typical_order: token 1 before token 0; a mass of .3 needs no more, and the best token is gone."""
    assert _kept(LOGITS, 0.3) == [1]
    assert [_kept(LOGITS, 0.3, count) for count in (2, 3, 4, 5, 6)] == [list(range(count)) for count in (2, 3, 4, 5, 6)]


def test_tokens_that_tie_with_the_last_stay() -> None:
    """The two of .001 stay together, whichever of them min_keep would end at."""
    assert _kept(LOGITS, 0.3, 7) == list(range(8))
    assert _kept(torch.tensor([[0.0, 3.0, 0.0, 0.0]]), 0.9) == [0, 1, 2, 3]


def _warped(logits: Tensor, mass: float, min_keep: int) -> Tensor:
    return TypicalLogitsWarper(mass, min_tokens_to_keep=min_keep)(torch.zeros(len(logits), 1).long(), logits) > -INF


@pytest.mark.parametrize("min_keep", [1, 3, 400])
@pytest.mark.parametrize("mass", [0.2, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0])
def test_it_keeps_what_hugging_faces_warper_keeps(scale: float, mass: float, min_keep: int) -> None:
    """From nearly uniform rows to nearly certain ones, with a ninth of the tokens masked."""
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(0)) * scale
    logits[:, 4::9] = -INF
    mask = keep(logits, torch.full((20,), mass), torch.full((20,), min_keep))
    assert torch.equal(mask, _warped(logits, mass, min_keep))


@pytest.mark.parametrize("mass", [0.2, 0.9])
def test_it_keeps_what_hugging_faces_warper_keeps_among_ties(mass: float) -> None:
    """Whole numbers: each distance is shared by many."""
    logits = (torch.randn(20, 500, generator=torch.Generator().manual_seed(1)) * 2).round()
    assert torch.equal(keep(logits, torch.full((20,), mass), torch.ones(20).long()), _warped(logits, mass, 1))


@pytest.mark.parametrize("mass", [0.05, 0.5, 0.99])
def test_it_is_the_smallest_set_that_has_the_mass(mass: float) -> None:
    """In numpy's float64: the kept tokens reach it, without the last they do not, and no dropped one is nearer."""
    logits = torch.randn(20, 300, generator=torch.Generator().manual_seed(2)) * 2
    mask = keep(logits, torch.full((20,), mass, dtype=torch.float64), torch.ones(20).long())
    for row, x in zip(mask.numpy(), logits.double().numpy(), strict=True):
        p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
        distance = np.abs(-np.log(p) + (p * np.log(p)).sum())
        last = distance[row].argmax()
        assert p[row].sum() >= mass
        assert p[row].sum() - p[row][last] < mass
        assert row.all() or distance[~row].min() > distance[row].max()


def test_each_row_has_its_own_mass_and_least_number() -> None:
    """Four requests in one call."""
    mask = keep(LOGITS.expand(4, -1), torch.tensor([0.3, 0.5, 0.9, 0.3]), torch.tensor([1, 1, 1, 4]))
    assert mask.sum(-1).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("min_keep", [1, 2, 1000])
def test_a_masked_token_never_stays_and_counts_for_nothing(min_keep: int) -> None:
    """A row with one token keeps it, a row without a token none; min_keep never reaches beyond what there is."""
    logits = torch.tensor([[-INF, 7.25, -INF], [-INF] * 3, [-INF, 0.0, 0.0]])
    mask = keep(logits, torch.full((3,), 0.9), torch.full((3,), min_keep))
    assert mask.tolist() == [[False, True, False], [False] * 3, [False, True, True]]
    few = torch.randn(5, 100, generator=torch.Generator().manual_seed(3)) * 2
    wide = torch.full((5, 300), -INF)
    wide[:, 100:200] = few
    rest = torch.full((5,), 0.6), torch.full((5,), min_keep)
    assert torch.equal(keep(wide, *rest)[:, 100:200], keep(few, *rest))
    assert keep(wide, *rest).sum() == keep(few, *rest).sum()


@pytest.mark.parametrize("vocabulary", [1, 4, 997])
def test_a_uniform_row_keeps_everything(vocabulary: int) -> None:
    """All are equally typical."""
    assert len(_kept(torch.full((1, vocabulary), 0.1), 0.01)) == vocabulary


def test_a_forced_token_stays() -> None:
    """+inf has no distance, and keeps everything that is there."""
    assert _kept(torch.tensor([[0.0, INF, -INF]]), 0.5) == [0, 1]


@pytest.mark.parametrize("vocabulary", [1, 63, 1000, 151936])
def test_a_row_does_not_depend_on_the_rows_beside_it(vocabulary: int) -> None:
    """To the bit, at sizes where torch splits a sum among threads too."""
    random = torch.Generator().manual_seed(4)
    logits = torch.randn(5, vocabulary, generator=random) * 2
    mass, min_keep = torch.rand(5, generator=random) * 0.9 + 0.05, torch.tensor([1, 50, 1, 7, 1])
    together = keep(logits, mass, min_keep)
    for rows in (slice(0, 1), slice(4, 5), torch.tensor([3, 1])):
        assert torch.equal(keep(logits[rows], mass[rows], min_keep[rows]), together[rows])


def test_bfloat16_is_read_as_float32() -> None:
    """The probabilities are not rounded to bfloat16."""
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(5)).bfloat16()
    rest = torch.full((3,), 0.7), torch.ones(3).long()
    assert torch.equal(keep(logits, *rest), keep(logits.float(), *rest))


def test_an_empty_batch_keeps_nothing() -> None:
    """R = 0 is a batch like any other."""
    assert keep(torch.zeros(0, 100), torch.zeros(0), torch.zeros(0).long()).shape == (0, 100)


@pytest.mark.parametrize("wrong", [{"mass": 0.0}, {"mass": 1.0}, {"mass": -0.5}, {"min_keep": 0}, {"min_keep": 1.5}])
def test_a_parameter_out_of_bounds_is_refused(wrong: dict[str, float]) -> None:
    """At admission; 0 and 1 too."""
    with pytest.raises(ValidationError):
        Typical.Params.model_validate(wrong)
    assert Typical.Params().model_dump() == {"mass": 0.9, "min_keep": 1}
