"""Epsilon and eta: their definitions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import EpsilonLogitsWarper, EtaLogitsWarper

from midstep_epsilon_eta import Epsilon, Eta
from midstep_epsilon_eta.reference import epsilon, eta

INF = float("inf")
# Probabilities .550 .334 .074 .027 .010 .004 .001 .001, entropy 1.061598.
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])
Keep = Callable[[Tensor, Tensor], Tensor]
both = pytest.mark.parametrize("keep", [epsilon, eta], ids=["epsilon", "eta"])


def _count(keep: Keep, cutoff: float, logits: Tensor = LOGITS) -> int:
    return int(keep(logits, torch.tensor([cutoff])).sum())


def test_epsilon_keeps_what_is_at_least_as_likely_as_the_cutoff() -> None:
    """B4.epsilon.05_keep."""
    mask = epsilon(LOGITS, torch.tensor([0.05]))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True] * 3 + [False] * 5]


def test_eta_lowers_the_cutoff_where_the_entropy_is_high() -> None:
    """B4.eta.2_keep: sqrt(.2) exp(-1.061598) = .154692 is below .2; neither reaches .074, both reach .334."""
    assert eta(LOGITS, torch.tensor([0.2])).tolist() == [[True, True] + [False] * 6]
    # .4: the threshold is .218768 and keeps .334; epsilon's does not.
    assert _count(eta, 0.4) == 2
    assert _count(epsilon, 0.4) == 1


def test_eta_is_epsilon_where_the_entropy_is_low() -> None:
    """B4.eta_threshold(.05): sqrt(.05) exp(-1.061598) = .077 is above .05, so .074 stays."""
    assert eta(LOGITS, torch.tensor([0.05])).tolist() == [[True] * 3 + [False] * 5]


def test_eta_keeps_a_uniform_row() -> None:
    """Of 10,000 equals none reaches .0009; sqrt(.0009) / 10,000 they do, and so does one a tenth as likely."""
    logits = torch.zeros(1, 10_000)
    logits[0, :2] = torch.tensor([1.0, -2.3])
    assert _count(epsilon, 9e-4, logits) == 1
    assert _count(eta, 9e-4, logits) == 10_000


def _rows(scale: float) -> Tensor:
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(0)) * scale
    logits[:, 4::9] = -INF
    logits[:, 30:35] = logits[:, 40:45]
    return logits


@pytest.mark.parametrize("cutoff", [3e-4, 9e-4, 0.01, 0.3])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 30.0])
def test_epsilon_keeps_what_hugging_faces_warper_keeps(scale: float, cutoff: float) -> None:
    """From nearly uniform rows to nearly certain ones, with ties and masked tokens."""
    logits = _rows(scale)
    kept = EpsilonLogitsWarper(cutoff)(torch.zeros(20, 1, dtype=torch.int64), logits) > -INF
    assert torch.equal(epsilon(logits, torch.full((20,), cutoff)), kept)


@pytest.mark.parametrize("cutoff", [3e-4, 9e-4, 0.01, 0.3])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 30.0])
def test_eta_keeps_what_hugging_faces_warper_keeps(scale: float, cutoff: float) -> None:
    """From nearly uniform rows to nearly certain ones, with ties and masked tokens."""
    logits = _rows(scale)
    kept = EtaLogitsWarper(cutoff)(torch.zeros(20, 1, dtype=torch.int64), logits) > -INF
    assert torch.equal(eta(logits, torch.full((20,), cutoff)), kept)


@pytest.mark.parametrize("cutoff", [1e-6, 0.01, 0.9])
def test_eta_equals_the_comparison_of_probabilities(cutoff: float) -> None:
    """In numpy's float64, over the finite tokens alone."""
    logits = _rows(2.0)
    mask = eta(logits, torch.full((20,), cutoff))
    for row, x in zip(mask, logits.double().numpy(), strict=True):
        finite = np.isfinite(x)
        p = np.where(finite, np.exp(x - x.max()), 0)
        p /= p.sum()
        entropy = -(p[finite] * np.log(p[finite])).sum()
        assert row.tolist() == (p >= min(cutoff, cutoff**0.5 * np.exp(-entropy), p.max())).tolist()


@both
def test_a_token_of_exactly_the_cutoff_stays(keep: Keep) -> None:
    """And the next less likely one does not. The others are too unlikely to move the sum."""
    at = torch.tensor([-46.0])
    below = torch.nextafter(at, torch.tensor(-INF))
    logits = torch.cat([torch.zeros(1), at, below])[None]
    assert keep(logits, at.double().exp()).tolist() == [[True, True, False]]


def test_the_best_token_and_its_ties_stay_where_nothing_reaches_the_cutoff() -> None:
    """Under epsilon; eta's threshold is below exp(-H), which the best token of every row reaches."""
    logits = torch.zeros(1, 1000)
    logits[0, [3, 700]] = 0.5
    assert epsilon(logits, torch.tensor([0.99])).nonzero()[:, 1].tolist() == [3, 700]
    assert eta(logits, torch.tensor([0.99]))[0, [3, 700]].all()


@pytest.mark.parametrize(("keep", "stay"), [(epsilon, [8, 6, 3, 1]), (eta, [8, 6, 3, 2])], ids=["epsilon", "eta"])
def test_each_row_has_its_own_cutoff(keep: Keep, stay: list[int]) -> None:
    """The larger, the fewer stay; with .9 eta's threshold is .328152."""
    mask = keep(LOGITS.expand(4, -1), torch.tensor([1e-7, 0.001, 0.05, 0.9]))
    assert mask.sum(-1).tolist() == stay


@both
def test_a_masked_token_is_absent(keep: Keep) -> None:
    """A row with one token keeps it; a row without a token keeps none; the others stay as they do without it."""
    logits = torch.tensor([[-INF, 7.25, -INF], [-INF] * 3])
    assert keep(logits, torch.tensor([0.5, 0.5])).tolist() == [[False, True, False], [False] * 3]
    few = torch.randn(5, 100, generator=torch.Generator().manual_seed(2)) * 2
    wide = torch.full((5, 300), -INF)
    wide[:, 100:200] = few
    cutoff = torch.full((5,), 0.01)
    assert torch.equal(keep(wide, cutoff)[:, 100:200], keep(few, cutoff))
    assert keep(wide, cutoff).sum() == keep(few, cutoff).sum()


@both
def test_a_forced_token_stays(keep: Keep) -> None:
    """Beside +inf there are no probabilities, and everything that is there stays."""
    assert keep(torch.tensor([[0.0, INF, -INF]]), torch.tensor([0.5])).tolist() == [[True, True, False]]


@both
@pytest.mark.parametrize("vocabulary", [1, 63, 1000, 151936])
def test_a_row_does_not_depend_on_the_rows_beside_it(vocabulary: int, keep: Keep) -> None:
    """To the bit, at sizes where torch splits a sum among threads too."""
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(5, vocabulary, generator=random) * 2
    cutoff = torch.rand(5, generator=random) / 1000 + 1e-6
    together = keep(logits, cutoff)
    for rows in (slice(0, 1), slice(4, 5), torch.tensor([3, 1])):
        assert torch.equal(keep(logits[rows], cutoff[rows]), together[rows])


@both
def test_bfloat16_is_read_as_float32(keep: Keep) -> None:
    """The probabilities are not rounded to bfloat16."""
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(4)).bfloat16()
    cutoff = torch.full((3,), 0.002)
    assert torch.equal(keep(logits, cutoff), keep(logits.float(), cutoff))


@both
def test_an_empty_batch_keeps_nothing(keep: Keep) -> None:
    """R = 0 is a batch like any other."""
    assert keep(torch.zeros(0, 100), torch.zeros(0)).shape == (0, 100)


@pytest.mark.parametrize("method", [Epsilon, Eta])
@pytest.mark.parametrize("cutoff", [0.0, 1.0, -0.1, 3.0, INF])
def test_a_cutoff_out_of_bounds_is_refused(method: type[Epsilon] | type[Eta], cutoff: float) -> None:
    """At admission; 0 and 1 too."""
    with pytest.raises(ValidationError):
        method.Params.model_validate({"cutoff": cutoff})
    assert method.Params().model_dump() == {"cutoff": 3e-4}
