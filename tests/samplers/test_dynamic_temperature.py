"""Dynamic temperature and EDT: their definitions."""

import json

import numpy as np
import pytest
import torch
from kernel_cases import KINDS, rows_of
from torch import Tensor

import midstep
from midstep_dynamic_temperature.reference import LEAST, between, divide, dynamic_temperature, edt, entropy, falling

INF = float("inf")
LOGITS = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]])
ENTROPY = 1.061598


def test_entropy_is_over_the_tokens_that_are_there() -> None:
    """Golden B0.entropy_nats; a masked token adds nothing, one token has none."""
    assert entropy(LOGITS).tolist() == pytest.approx([ENTROPY], abs=1e-6)
    masked = torch.cat([LOGITS, torch.full((1, 5), -INF)], 1)
    assert entropy(masked).tolist() == entropy(LOGITS).tolist()
    assert entropy(torch.tensor([[-INF, 4.0]])).tolist() == [0.0]


@pytest.mark.parametrize(("exponent", "temperature"), [(1.0, 1.010521), (2.0, 0.760632)])
def test_dynamic_temperature_lies_between_its_bounds_by_entropy(exponent: float, temperature: float) -> None:
    """Goldens B9.dynatemp(.5,1.5,1) and B9.dynatemp(.5,1.5,2); 8 tokens."""
    columns = [torch.tensor([value]) for value in (0.5, 1.5, exponent)]
    found = between(entropy(LOGITS), torch.tensor([8.0]), *columns)
    assert found.tolist() == pytest.approx([temperature], abs=1e-6)
    result = dynamic_temperature(LOGITS, *columns)
    assert result.dtype == torch.float32
    assert torch.allclose(result.softmax(-1), (LOGITS / temperature).softmax(-1), atol=1e-6)


def test_edts_temperature_falls_with_the_entropy() -> None:
    """Goldens B10.edt(T0=1,theta=1), B10.edt_H=.05 and B10.edt_limit_Hinf; below 0.01 and at 0 it is greedy."""
    one = torch.ones(5)
    found = falling(torch.tensor([ENTROPY, 0.05, 1e9, 0.04, 0.0]), one, one)
    assert found[:3].tolist() == pytest.approx([0.810426, 0.011529, 1.0], abs=1e-6)
    assert found[3:].tolist() == pytest.approx([LEAST, LEAST])
    result = edt(LOGITS, one[:1], one[:1])
    assert torch.allclose(result.softmax(-1), (LOGITS / 0.810426).softmax(-1), atol=1e-6)


def _llama(x: np.ndarray, low: float, high: float, exponent: float) -> np.ndarray:
    """Return the probabilities that llama.cpp's extended temperature leaves, in float64."""
    there = np.isfinite(x)
    y = x[there]
    if len(y) > 1:
        p = np.exp(y - y.max())
        p /= p.sum()
        share = -(p[p > 0] * np.log(p[p > 0])).sum() / np.log(len(y))
        temperature = low + (high - low) * share**exponent
        y = y / temperature if temperature > 0 else np.where(np.arange(len(y)) == y.argmax(), y, -np.inf)
    p = np.zeros(len(x))
    p[there] = np.exp(y - y.max())
    return p / p.sum()


@pytest.mark.parametrize(
    ("low", "high", "exponent"), [(0.5, 1.5, 1.0), (0.1, 3.0, 0.5), (0.0, 2.0, 2.0), (1.2, 1.2, 1)]
)
@pytest.mark.parametrize("kind", ["plain", "shifted", "peaked", "masked", "one_hot", "all_equal"])
def test_dynamic_temperature_is_llama_cpps(kind: str, low: float, high: float, exponent: float) -> None:
    """H_max counts the tokens that are left."""
    logits = rows_of(kind, 3, 700, "cpu")
    found = dynamic_temperature(logits, *(torch.full((3,), float(value)) for value in (low, high, exponent)))
    for row, x in enumerate(logits.double().numpy()):
        expected = _llama(x, low, high, exponent)
        np.testing.assert_allclose(found[row].double().softmax(-1).numpy(), expected, rtol=1e-3, atol=1e-5)


def test_a_higher_bound_flattens_and_a_higher_exponent_sharpens() -> None:
    """Measured by the best token's probability."""
    columns = torch.tensor([[0.5, 1.5, 1.0], [0.5, 3.0, 1.0], [1.0, 1.5, 1.0], [0.5, 1.5, 3.0]])
    best = dynamic_temperature(LOGITS.expand(4, -1), *columns.T).softmax(-1)[:, 0]
    assert best[1] < best[0]
    assert best[2] < best[0]
    assert best[3] > best[0]


def test_a_higher_t0_flattens_and_a_higher_theta_sharpens() -> None:
    """Theta 0 divides by t0 alone."""
    best = edt(LOGITS.expand(4, -1), torch.tensor([1.0, 2.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 0.0]))
    best = best.softmax(-1)[:, 0]
    assert best[1] < best[0] < best[2]
    assert best[3].item() == pytest.approx((LOGITS / 2).softmax(-1)[0, 0].item(), abs=1e-6)


def _both(logits: Tensor) -> list[Tensor]:
    """Return what each method makes of `logits` where its temperature is 0: low = high = 0, and t0 below 0.01."""
    ones = torch.ones(len(logits))
    return [dynamic_temperature(logits, 0 * ones, 0 * ones, ones), edt(logits, 0.009 * ones, ones)]


def test_a_temperature_of_0_is_greedy_and_stays_finite() -> None:
    """The best token has all the probability though the next logit is the next float; ties with it share."""
    next_below = float(torch.nextafter(torch.tensor(1.5), torch.tensor(0.0)))
    logits = torch.tensor([[1.5, next_below, -INF, -50.0], [1.5, 1.5, -INF, -50.0], [-INF, -1e5, -2e5, -INF]])
    for result in _both(logits):
        assert torch.equal(result.isfinite(), logits.isfinite())
        assert torch.equal(result.isneginf(), logits.isneginf())
        assert result.argmax(-1).tolist() == [0, 0, 1]
        assert result.softmax(-1).tolist() == [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]


def test_at_most_one_token_is_left_as_it_is() -> None:
    """And a row without any gives no NaN."""
    logits = torch.tensor([[-INF, 7.25, -INF], [-INF] * 3])
    for result in (*_both(logits), dynamic_temperature(logits, *(torch.full((2,), x) for x in (0.5, 1.5, 1.0)))):
        assert torch.equal(result, logits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_and_the_best_logit_stay(kind: str) -> None:
    """Whatever the temperature; masked tokens stay masked."""
    logits = rows_of(kind, 3, 500, "cpu").sort(-1, descending=True).values
    for temperature in (LEAST, 0.3, 1.0, 4.0):
        result = divide(logits, torch.full((3,), temperature))
        assert torch.equal(result[:, 0], logits[:, 0])
        assert torch.equal(result.isneginf(), logits.isneginf())
        # nan: -inf minus -inf
        assert (result.diff(dim=-1).nan_to_num(0.0) <= 0).all()


@pytest.mark.parametrize("vocabulary", [7, 1000, 151936])
def test_a_row_does_not_depend_on_the_rows_beside_it(vocabulary: int) -> None:
    """To the bit, in a large vocabulary too."""
    logits = rows_of("plain", 3, vocabulary, "cpu")
    columns = torch.tensor([[0.5, 0.1, 0.0], [1.5, 3.0, 1.0], [1.0, 0.5, 2.0]])
    together, edts = dynamic_temperature(logits, *columns), edt(logits, columns[1], columns[2])
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.equal(dynamic_temperature(logits[one], *columns[:, one]), together[one])
        assert torch.equal(edt(logits[one], columns[1, one], columns[2, one]), edts[one])


def test_bfloat16_is_read_as_float32() -> None:
    """The new logits are not rounded to bfloat16."""
    logits = (LOGITS * 1.37).bfloat16()
    columns = torch.tensor([0.5]), torch.tensor([1.5]), torch.tensor([1.0])
    assert torch.equal(dynamic_temperature(logits, *columns), dynamic_temperature(logits.float(), *columns))
    assert torch.equal(edt(logits, *columns[1:]), edt(logits.float(), *columns[1:]))


def test_an_empty_batch_stays_empty() -> None:
    """R = 0 is a batch like any other."""
    none = torch.zeros(0)
    assert dynamic_temperature(torch.zeros(0, 50), none, none, none).shape == (0, 50)
    assert edt(torch.zeros(0, 50), none, none).shape == (0, 50)


def test_a_low_above_the_high_is_refused() -> None:
    """With both values, what is allowed, and the way out; equal ones are a plain temperature."""
    says = r"dynamic_temperature = .*low = 2.0 is above high = 1.5; allowed: 0 <= low <= high; swap the two"
    with pytest.raises(ValueError, match=says):
        midstep.request(dynamic_temperature={"low": 2.0})
    with pytest.raises(ValueError, match=r"low = 0.5 is above high = -1.0"):
        midstep.request(dynamic_temperature={"high": -1.0})
    assert json.loads(midstep.request(dynamic_temperature={"low": 1.5})["midstep"])


@pytest.mark.parametrize(
    ("method", "bad"),
    [
        ("dynamic_temperature", {"low": -0.1}),
        ("dynamic_temperature", {"exponent": 0.0}),
        ("dynamic_temperature", {"range": 0.5}),
        ("edt", {"t0": 0.0}),
        ("edt", {"theta": -1.0}),
        ("edt", {"base": 0.7}),
    ],
)
def test_a_bad_temperature_is_refused(method: str, bad: dict[str, float]) -> None:
    """In one line with the method, the parameter and what is allowed."""
    with pytest.raises(ValueError, match=rf"{method}\.{next(iter(bad))} = .*parameters of {method}: "):
        midstep.request(**{method: bad})
