"""Top-n-sigma's kernel against its definition, in the interpreter and on a GPU: equal but at the threshold itself."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_top_nsigma.reference import keep

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_top_nsigma.kernel")

poison = kernel_cases.poison


def _columns(rows: int, device: str) -> tuple[Tensor, Tensor]:
    n, ddof = (1.0, 0.3, 2.0, 1.5, 10.0), (1, 0, 1, 0, 1)
    return torch.tensor(n[:rows], device=device), torch.tensor(ddof[:rows], device=device)


def _agrees(mask: Tensor, logits: Tensor, n: Tensor, ddof: Tensor) -> None:
    """Demand the definition's mask but for finite tokens within 1e-4 of the threshold, worked out in float64."""
    assert mask.dtype == torch.bool
    wide = logits.double()
    for row, x in enumerate(wide):
        values = x[x > -INF]
        count = max(len(values) - int(ddof[row]), 1)
        threshold = values.max() - n[row] * ((values - values.mean()).square().sum() / count).sqrt()
        near = (x - threshold).abs() <= 1e-4
        differs = mask[row] != keep(logits[row : row + 1], n[row : row + 1], ddof[row : row + 1])[0]
        assert not (differs & ~near).any(), f"row {row}: {differs.nonzero().flatten().tolist()}"
        assert mask[row, x.argmax()], f"row {row} lost its best token"


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_masks_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own n and ddof, and what lies between two rows never read."""
    logits, columns = rows_of(kind, rows, vocabulary, device, pad=61), _columns(rows, device)
    _agrees(kernel.keep(logits, *columns), logits, *columns)


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_masks_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32."""
    logits, columns = rows_of(kind, 5, 5001, device, torch.bfloat16), _columns(5, device)
    mask = kernel.keep(logits, *columns)
    _agrees(mask, logits.float(), *columns)
    assert torch.equal(mask, kernel.keep(logits.float(), *columns))


@on_devices
@pytest.mark.parametrize("ddof", [0, 1])
def test_the_threshold_is_known_to_a_few_parts_in_10000(device: str, ddof: int) -> None:
    """A token 2e-4 above it stays, and one 2e-4 below does not, in a row of two tiles."""
    row = rows_of("plain", 1, 5001, "cpu")[0].double()
    for _ in range(50):
        row[4500] = row.max() - 1.5 * row.std(correction=ddof)  # which hardly moves the threshold
    logits = row.float().to(device).repeat(2, 1)
    logits[:, 4500] += torch.tensor([2e-4, -2e-4], device=device)
    columns = torch.full((2,), 1.5, device=device), torch.full((2,), ddof, device=device)
    for keeps in (kernel.keep, keep):
        assert keeps(logits, *columns)[:, 4500].tolist() == [True, False]


@on_devices
def test_ddof_matters_in_a_short_row(device: str) -> None:
    """The second column reaches the rule: with n = 1.75 it decides on the second token."""
    logits = torch.tensor([[2.0, -0.45, -1.0, -1.0]], device=device).expand(2, -1)
    mask = kernel.keep(logits, torch.full((2,), 1.75, device=device), torch.tensor([1, 0], device=device))
    assert mask.tolist() == [[True, True, False, False], [True, False, False, False]]


@on_devices
def test_a_row_has_the_same_mask_alone(device: str) -> None:
    """To the bit."""
    logits, (n, ddof) = rows_of("plain", 5, 9001, device), _columns(5, device)
    together = kernel.keep(logits, n, ddof)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(kernel.keep(logits[rows], n[rows], ddof[rows]), together[rows])


@on_devices
def test_a_row_without_a_token_keeps_none(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits, columns = rows_of("plain", 3, 5000, device), _columns(3, device)
    expected = kernel.keep(logits, *columns)
    logits[1] = -INF
    mask = kernel.keep(logits, *columns)
    assert not mask[1].any()
    assert torch.equal(mask[::2], expected[::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one n expanded."""
    logits = rows_of("plain", 3, 777, device)
    n, ddof = torch.tensor(0.8, device=device).expand(3), torch.tensor(1, device=device).expand(3)
    assert torch.equal(kernel.keep(logits.T.contiguous().T, n, ddof), kernel.keep(logits, n.clone(), ddof.clone()))


@on_devices
def test_an_empty_batch_keeps_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    none = torch.zeros(0, device=device)
    assert kernel.keep(torch.zeros(0, 100, device=device), none, none.long()).shape == (0, 100)
