"""Top-n-sigma: its definition."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from midstep_top_nsigma import TopNSigma
from midstep_top_nsigma.reference import keep

INF = float("inf")
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])


def _all(value: float, rows: int) -> torch.Tensor:
    return torch.full((rows,), value)


@pytest.mark.parametrize("ddof", [0, 1])
def test_it_keeps_what_is_within_n_deviations_of_the_best(ddof: int) -> None:
    """B2.topnsigma_1_keep: deviations 2.691753 and 2.517905, so what is above .308 and .482."""
    mask = keep(LOGITS, _all(1.0, 1), torch.tensor([ddof]))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True] * 3 + [False] * 5]


def test_ddof_matters_in_a_short_row() -> None:
    """B2.ddof_matters: with n = 1.75 the sample's deviation reaches the second token, the population's does not."""
    logits = torch.tensor([[2.0, -0.45, -1.0, -1.0]]).expand(2, -1)
    mask = keep(logits, _all(1.75, 2), torch.tensor([1, 0]))
    assert mask.tolist() == [[True, True, False, False], [True, False, False, False]]


def _llama_cpp(x: np.ndarray, n: float) -> np.ndarray:
    """Work out the rule of llama.cpp's sampler in float64: the population's deviation over the finite logits."""
    finite = np.isfinite(x)
    mean = x[finite].sum() / finite.sum()
    deviation = np.sqrt(((x[finite] - mean) ** 2).sum() / finite.sum())
    return finite & (x >= x.max() - n * deviation)


@pytest.mark.parametrize("n", [0.3, 1.0, 1.5, 3.0])
def test_without_ddof_it_is_llama_cpps_rule(n: float) -> None:
    """Rows of 1,000 with a third of the tokens masked."""
    logits = torch.randn(20, 1000, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, ::3] = -INF
    mask = keep(logits, _all(n, 20), torch.zeros(20, dtype=torch.int64))
    for row, x in zip(mask, logits.double().numpy(), strict=True):
        assert row.tolist() == _llama_cpp(x, n).tolist()


@pytest.mark.parametrize("n", [0.5, 1.0, 2.0])
def test_the_temperature_does_not_matter(n: float) -> None:
    """B2.temperature_invariant."""
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(1)) * 3
    ones = torch.ones(20, dtype=torch.int64)
    for temperature in (0.25, 1.7, 8.0):
        assert torch.equal(keep(logits / temperature, _all(n, 20), ones), keep(logits, _all(n, 20), ones))


def test_each_row_has_its_own_n() -> None:
    """The larger, the more stay."""
    mask = keep(LOGITS.expand(4, -1), torch.tensor([0.1, 0.5, 1.0, 3.0]), torch.ones(4, dtype=torch.int64))
    assert mask.sum(-1).tolist() == [1, 2, 3, 8]


def test_a_token_at_the_threshold_stays() -> None:
    """Of 2, 0, 0, 2 the deviation is 1; with n = 2 the threshold is 0. A larger one falls short of it."""
    logits = torch.tensor([[2.0, 0.0, 0.0, 2.0]]).expand(2, -1)
    mask = keep(logits, torch.tensor([2.0, 1.9999]), torch.zeros(2, dtype=torch.int64))
    assert mask.tolist() == [[True] * 4, [True, False, False, True]]


@pytest.mark.parametrize("ddof", [0, 1])
def test_a_row_with_one_token_keeps_it(ddof: int) -> None:
    """A sample of one has no deviation, and no NaN; a row without a token keeps none."""
    logits = torch.tensor([[-INF, 7.25, -INF], [-INF] * 3])
    assert keep(logits, _all(1.0, 2), torch.full((2,), ddof)).tolist() == [[False, True, False], [False] * 3]


def test_a_forced_token_stays() -> None:
    """+inf has no deviation, and keeps everything that is there."""
    assert keep(torch.tensor([[0.0, INF, -INF]]), _all(1.0, 1), torch.tensor([1])).tolist() == [[True, True, False]]


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_row_of_equals_keeps_them_all(value: float) -> None:
    """However its mean is rounded."""
    assert keep(torch.full((1, 997), value), _all(1e-3, 1), torch.tensor([1])).all()


def test_a_masked_token_is_absent() -> None:
    """It moves neither the mean nor the deviation: the others stay as they do without it."""
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(2))
    wide = torch.full((5, 300), -INF)
    wide[:, 100:200] = logits
    rest = _all(1.0, 5), torch.tensor([0, 1, 0, 1, 0])
    mask = keep(wide, *rest)
    assert torch.equal(mask[:, 100:200], keep(logits, *rest))
    assert not mask[:, :100].any()
    assert not mask[:, 200:].any()


@pytest.mark.parametrize("vocabulary", [1, 63, 1000, 32001, 151936])
def test_a_row_does_not_depend_on_the_rows_beside_it(vocabulary: int) -> None:
    """To the bit, at sizes where torch splits a sum among threads too."""
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(5, vocabulary, generator=random)
    n, ddof = torch.rand(5, generator=random) * 3 + 0.1, torch.tensor([0, 1, 1, 0, 1])
    together = keep(logits, n, ddof)
    for rows in (slice(0, 1), slice(4, 5), torch.tensor([3, 1])):
        assert torch.equal(keep(logits[rows], n[rows], ddof[rows]), together[rows])


def test_bfloat16_is_read_as_float32() -> None:
    """The threshold is not rounded to bfloat16."""
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(4)).bfloat16()
    rest = _all(1.3, 3), torch.ones(3, dtype=torch.int64)
    assert torch.equal(keep(logits, *rest), keep(logits.float(), *rest))


def test_an_empty_batch_keeps_nothing() -> None:
    """R = 0 is a batch like any other."""
    assert keep(torch.zeros(0, 100), torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0, 100)


@pytest.mark.parametrize("wrong", [{"n": 0.0}, {"n": -1.0}, {"n": INF}, {"ddof": 2}, {"ddof": -1}, {"ddof": 0.5}])
def test_a_parameter_out_of_bounds_is_refused(wrong: dict[str, float]) -> None:
    """At admission."""
    with pytest.raises(ValidationError):
        TopNSigma.Params.model_validate(wrong)


def test_a_samples_deviation_is_taken_unless_told_otherwise() -> None:
    """As the authors' code does."""
    assert TopNSigma.Params().model_dump() == {"n": 1.0, "ddof": 1}
