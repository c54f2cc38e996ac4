"""Dynamic temperature's and EDT's kernel against their definitions, in the interpreter and on a GPU."""

from collections.abc import Callable

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_dynamic_temperature import reference

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_dynamic_temperature.kernel")

poison = kernel_cases.poison


def _columns(rows: int, device: str) -> list[Tensor]:
    return list(torch.tensor([[0.5, 0.0, 1.0], [1.5, 2.0, 1.0], [1.0, 0.5, 2.0]], device=device)[:, :rows])


def _edt_columns(rows: int, device: str) -> list[Tensor]:
    return list(torch.tensor([[1.0, 0.3, 2.0], [1.0, 0.1, 0.0]], device=device)[:, :rows])


def _agree(found: Tensor, logits: Tensor, temperature: Callable[[Tensor], Tensor]) -> None:
    """Demand what some entropy within 2e-5 of the definition's gives; the best logits exactly, -inf exactly."""
    entropy = reference.entropy(logits)
    apart = 2e-5 * (1 + entropy)
    low, high = (reference.divide(logits, temperature((entropy + e).clamp_min(0.0))) for e in (-apart, apart))
    there = ~logits.isneginf()
    assert found.dtype == torch.float32
    assert torch.equal(found.isneginf(), ~there)
    assert torch.equal(found.amax(-1), logits.float().amax(-1))
    slack = 1e-5 + 1e-6 * found.abs()
    assert (found >= low - slack)[there].all()
    assert (found <= high + slack)[there].all()


def _check(logits: Tensor) -> None:
    finite, columns = (~logits.isneginf()).sum(-1).float(), _columns(len(logits), str(logits.device))
    found = kernel.dynamic_temperature(logits, *columns)
    _agree(found, logits, lambda entropy: reference.between(entropy, finite, *columns))


def _check_edt(logits: Tensor) -> None:
    columns = _edt_columns(len(logits), str(logits.device))
    _agree(kernel.edt(logits, *columns), logits, lambda entropy: reference.falling(entropy, *columns))


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_tempered_logits_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own parameters, and what lies between two rows never read."""
    _check(rows_of(kind, rows, vocabulary, device, pad=61))


@on_devices
@pytest.mark.parametrize("kind", KINDS)
def test_edts_logits_agree(device: str, kind: str) -> None:
    """The kernel is the same; the temperature is another."""
    _check_edt(rows_of(kind, 3, 4099, device, pad=61))


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_tempered_logits_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32, and float32 is written."""
    logits = rows_of(kind, 3, 5001, device, torch.bfloat16)
    _check(logits)
    _check_edt(logits)
    columns = _columns(3, device)
    wide = kernel.dynamic_temperature(logits.float(), *columns)
    assert torch.equal(kernel.dynamic_temperature(logits, *columns), wide)


@on_devices
def test_a_temperature_of_0_is_greedy_and_stays_finite(device: str) -> None:
    """The best token has all the probability, however near the next."""
    logits = torch.zeros(2, 5000, device=device)
    logits[:, 4200] = 1.5
    logits[0, 17] = 1.4999998
    zero = torch.zeros(2, device=device)
    found = kernel.dynamic_temperature(logits, zero, zero, zero + 1)
    assert found.isfinite().all()
    assert found.softmax(-1)[:, 4200].tolist() == [1.0, 1.0]


@on_devices
def test_a_row_is_tempered_the_same_alone(device: str) -> None:
    """To the bit."""
    logits, columns = rows_of("plain", 3, 9001, device), _columns(3, device)
    together = kernel.dynamic_temperature(logits, *columns)
    for rows in (slice(1, 2), torch.tensor([2, 0], device=device)):
        assert torch.equal(kernel.dynamic_temperature(logits[rows], *(c[rows] for c in columns)), together[rows])


@on_devices
def test_a_row_without_a_token_stays_so(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits = rows_of("plain", 3, 5000, device)
    both = (kernel.dynamic_temperature, _columns(3, device)), (kernel.edt, _edt_columns(3, device))
    expected = [method(logits, *columns) for method, columns in both]
    logits[1] = -INF
    for (method, columns), before in zip(both, expected, strict=True):
        found = method(logits, *columns)
        assert found[1].isneginf().all()
        assert torch.equal(found[::2], before[::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one bound expanded."""
    logits, (_, high, exponent) = rows_of("plain", 3, 777, device), _columns(3, device)
    low = torch.tensor(0.5, device=device).expand(3)
    found = kernel.dynamic_temperature(logits.T.contiguous().T, low, high, exponent)
    assert torch.equal(found, kernel.dynamic_temperature(logits, low, high, exponent))


@on_devices
def test_an_empty_batch_stays_empty(device: str) -> None:
    """R = 0 launches nothing."""
    none = torch.zeros(0, device=device)
    assert kernel.dynamic_temperature(torch.zeros(0, 100, device=device), none, none, none).shape == (0, 100)
    assert kernel.edt(torch.zeros(0, 100, device=device), none, none).shape == (0, 100)
