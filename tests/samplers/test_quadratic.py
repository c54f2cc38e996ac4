"""Quadratic sampling: its definition."""

import numpy as np
import pytest
import torch
from kernel_cases import KINDS, rows_of

import midstep
from midstep_quadratic.reference import bend

INF = float("inf")
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])


def test_the_distance_to_the_best_is_squared() -> None:
    """Each row with its own factor and curve; golden B8.quadratic(.3,1) and B8.quadratic(.3,1.5)."""
    result = bend(LOGITS.expand(2, -1), torch.tensor([0.3, 0.3]), torch.tensor([1.0, 1.5]))
    assert result.dtype == torch.float32
    assert result[0].tolist() == pytest.approx([3.0, 2.925, 1.8, 0.3, -1.8, -4.5, -11.7, -11.7], abs=1e-5)
    assert result[1].tolist() == pytest.approx([3.0, 2.934375, 1.5, -1.05, -5.4, -12.0, -33.75, -33.75], abs=1e-5)


@pytest.mark.parametrize("curve", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("factor", [0.01, 0.25, 4.0])
def test_it_equals_the_sum_of_powers_in_float64(factor: float, curve: float) -> None:
    """The form that text-generation-webui computes, row by row, -inf left alone."""
    logits = rows_of("plain", 5, 1000, "cpu")
    logits[:, ::7] = -INF
    x = logits.double().numpy()
    top = x.max(-1, keepdims=True)
    d = np.where(np.isfinite(x), x - top, 0.0)
    k, s = (3 - curve) / 2, (curve - 1) / 2
    expected = np.where(np.isfinite(x), -(k * factor) * d**2 + (s * factor) * d**3 + top, -np.inf)
    found = bend(logits, torch.full((5,), factor), torch.full((5,), curve))
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("curve", [1.0, 3.0])
def test_factor_0_changes_nothing(curve: float) -> None:
    """Not a bit, while its neighbour is bent."""
    logits = rows_of("masked", 2, 100, "cpu")
    result = bend(logits, torch.tensor([0.0, 0.3]), torch.full((2,), curve))
    assert torch.equal(result[0], logits[0])
    assert not torch.equal(result[1], logits[1])


@pytest.mark.parametrize("curve", [1.0, 2.0, 3.0])
def test_the_order_stays(curve: float) -> None:
    """The best keeps its logit, equal logits stay equal, and none overtakes another."""
    logits = rows_of("ties", 4, 500, "cpu").sort(-1, descending=True).values
    result = bend(logits, torch.full((4,), 0.3), torch.full((4,), curve))
    assert torch.equal(result[:, 0], logits[:, 0])
    assert torch.equal(result.diff(dim=-1) == 0, logits.diff(dim=-1) == 0)
    assert (result.diff(dim=-1) <= 0).all()


def test_near_tokens_come_nearer_and_far_ones_go_farther() -> None:
    """The border is a distance of 1 / factor."""
    result = bend(torch.tensor([[0.0, -3.9, -4.0, -4.1]]), torch.tensor([0.25]), torch.tensor([1.0]))
    assert result[0, 1] > -3.9
    assert result[0, 2] == -4.0
    assert result[0, 3] < -4.1


@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_a_masked_token_stays_masked(factor: float) -> None:
    """A row without any token gives no NaN, and a lone token keeps its logit."""
    logits = torch.tensor([[-INF, 0.0, -INF, -1.0], [-INF] * 4, [-INF, -INF, 7.0, -INF]])
    result = bend(logits, torch.full((3,), factor), torch.full((3,), 1.5))
    assert torch.equal(result.isneginf(), logits.isneginf())
    assert not result.isnan().any()
    assert result[2, 2] == 7.0


@pytest.mark.parametrize("curve", [1.0, 3.0])
def test_a_token_far_below_gives_no_nan(curve: float) -> None:
    """Whatever another method left there."""
    logits = torch.tensor([[0.0, -1e6, -1e14, -3e38]])
    result = bend(logits, torch.tensor([0.3]), torch.tensor([curve]))
    assert not result.isnan().any()
    assert result[0, 0] == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_rows_beside_it(kind: str) -> None:
    """To the bit, in a large vocabulary too."""
    logits = rows_of(kind, 5, 32001, "cpu")
    factor, curve = torch.tensor([0.3, 0.0, 1.0, 0.25, 2.0]), torch.tensor([1.0, 2.0, 3.0, 1.5, 1.1])
    together = bend(logits, factor, curve)
    for row in range(5):
        one = slice(row, row + 1)
        assert torch.equal(bend(logits[one], factor[one], curve[one]), together[one])


def test_bfloat16_is_read_as_float32() -> None:
    """The new logits are not rounded to bfloat16."""
    logits, factor, curve = (LOGITS * 1.37).bfloat16(), torch.tensor([0.3]), torch.tensor([1.5])
    assert torch.equal(bend(logits, factor, curve), bend(logits.float(), factor, curve))


def test_an_empty_batch_stays_empty() -> None:
    """R = 0 is a batch like any other."""
    assert bend(torch.zeros(0, 50), torch.zeros(0), torch.zeros(0)).shape == (0, 50)


@pytest.mark.parametrize("bad", [{"factor": -0.1}, {"curve": 0.9}, {"curve": 3.1}, {"factor": "0.3"}, {"facter": 0.3}])
def test_a_bad_quadratic_request_is_refused(bad: dict[str, object]) -> None:
    """In one line with the value and what is allowed."""
    with pytest.raises(ValueError, match=r"quadratic.*factor \(float, >= 0, default 0.25\)"):
        midstep.request(quadratic=bad)
