"""Quadratic sampling's kernels against their definition, in the interpreter and on a GPU."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_quadratic.reference import bend

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_quadratic.kernel")

poison = kernel_cases.poison


def _columns(rows: int, device: str) -> tuple[Tensor, Tensor]:
    factor, curve = [0.3, 0.0, 2.5, 0.01, 0.25], [1.5, 2.0, 1.0, 3.0, 1.0]
    return torch.tensor(factor[:rows], device=device), torch.tensor(curve[:rows], device=device)


def _agree(found: Tensor, expected: Tensor) -> None:
    """To a few roundings: a GPU fuses a product with a sum. -inf exactly where the other has it."""
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-5)


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_bent_logits_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own factor and curve, and what lies between two rows never read."""
    logits, columns = rows_of(kind, rows, vocabulary, device, pad=61), _columns(rows, device)
    _agree(kernel.bend(logits, *columns), bend(logits, *columns))


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_bent_logits_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32, and float32 is written."""
    logits, columns = rows_of(kind, 5, 5001, device, torch.bfloat16), _columns(5, device)
    found = kernel.bend(logits, *columns)
    _agree(found, bend(logits, *columns))
    assert torch.equal(found, kernel.bend(logits.float(), *columns))


@on_devices
def test_factor_0_changes_nothing(device: str) -> None:
    """Not a bit."""
    logits, (factor, curve) = rows_of("masked", 3, 5000, device), _columns(3, device)
    assert torch.equal(kernel.bend(logits, factor, curve)[1], logits[1])


@on_devices
def test_a_row_is_bent_the_same_alone(device: str) -> None:
    """To the bit."""
    logits, (factor, curve) = rows_of("plain", 5, 9001, device), _columns(5, device)
    together = kernel.bend(logits, factor, curve)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(kernel.bend(logits[rows], factor[rows], curve[rows]), together[rows])


@on_devices
def test_a_row_without_a_token_stays_so(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits, columns = rows_of("plain", 3, 5000, device), _columns(3, device)
    expected = kernel.bend(logits, *columns)
    logits[1] = -INF
    found = kernel.bend(logits, *columns)
    assert found[1].isneginf().all()
    assert torch.equal(found[::2], expected[::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one factor expanded."""
    logits, (_, curve) = rows_of("plain", 3, 777, device), _columns(3, device)
    factor = torch.tensor(0.3, device=device).expand(3)
    assert torch.equal(kernel.bend(logits.T.contiguous().T, factor, curve), kernel.bend(logits, factor, curve))


@on_devices
def test_an_empty_batch_stays_empty(device: str) -> None:
    """R = 0 launches nothing."""
    none = torch.zeros(0, device=device)
    assert kernel.bend(torch.zeros(0, 100, device=device), none, none).shape == (0, 100)
