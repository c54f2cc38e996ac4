"""P-less's kernel against its definition, in the interpreter and on a GPU: equal but at the threshold itself."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_p_less.reference import keep

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_p_less.kernel")

poison = kernel_cases.poison


def _norm(rows: int, device: str) -> Tensor:
    return torch.tensor([False, True, True, False, True][:rows], device=device)


def _agrees(mask: Tensor, logits: Tensor, norm: Tensor) -> None:
    """Demand the definition's mask but for tokens within 1e-4 nats of the threshold, worked out in float64."""
    assert mask.dtype == torch.bool
    log_p = logits.double().log_softmax(-1)
    c = log_p.exp().square().sum(-1)
    count = logits.isfinite().sum(-1)
    c = torch.where(norm, (count * c - 1) / (count - 1).clamp_min(1), c)
    near = (log_p - c.clamp_min(1e-300).log()[:, None]).abs() <= 1e-4
    differs = mask != keep(logits, norm)
    assert not (differs & ~near).any(), (differs & ~near).nonzero().tolist()
    assert mask[logits == logits.amax(-1, keepdim=True)].all(), "a best token was lost"


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_masks_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own norm, and what lies between two rows never read."""
    logits, norm = rows_of(kind, rows, vocabulary, device, pad=61), _norm(rows, device)
    _agrees(kernel.keep(logits, norm), logits, norm)


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_masks_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32."""
    logits, norm = rows_of(kind, 5, 5001, device, torch.bfloat16), _norm(5, device)
    mask = kernel.keep(logits, norm)
    _agrees(mask, logits.float(), norm)
    assert torch.equal(mask, kernel.keep(logits.float(), norm))


@on_devices
def test_norm_matters(device: str) -> None:
    """c = .365 leaves one token, c = .1533 two."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]], device=device).log().expand(2, -1)
    mask = kernel.keep(logits, torch.tensor([False, True], device=device))
    assert mask.tolist() == [[True, False, False, False], [True, True, False, False]]


@on_devices
@pytest.mark.parametrize("norm", [False, True])
def test_the_threshold_is_known_to_a_few_parts_in_10000(device: str, norm: bool) -> None:
    """A token 3e-4 nats above it stays, and one 3e-4 below does not, in a row of two tiles."""
    row = rows_of("plain", 1, 5001, "cpu")[0].double()
    for _ in range(50):
        log_p = row.log_softmax(-1)
        c = log_p.exp().square().sum()
        log_c = ((len(row) * c - 1) / (len(row) - 1) if norm else c).log()
        row[4500] = log_c + row.logsumexp(-1)  # which moves the threshold by c times as much
    logits = row.float().to(device).repeat(2, 1)
    logits[:, 4500] += torch.tensor([3e-4, -3e-4], device=device)
    column = torch.full((2,), norm, device=device)
    for keeps in (kernel.keep, keep):
        assert keeps(logits, column)[:, 4500].tolist() == [True, False]


@on_devices
@pytest.mark.parametrize("value", [0.1, -77.7, 1000.1])
def test_a_uniform_row_keeps_everything(device: str, value: float) -> None:
    """Also where float32 knows the logits less well than the tolerance."""
    for vocabulary in (3, 997, 12289):
        logits = torch.full((2, vocabulary), value, device=device)
        assert kernel.keep(logits, _norm(2, device)).all()


@on_devices
def test_a_row_has_the_same_mask_alone(device: str) -> None:
    """To the bit."""
    logits, norm = rows_of("plain", 5, 9001, device), _norm(5, device)
    together = kernel.keep(logits, norm)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(kernel.keep(logits[rows], norm[rows]), together[rows])


@on_devices
def test_a_row_without_a_token_keeps_none(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits, norm = rows_of("plain", 3, 5000, device), _norm(3, device)
    expected = kernel.keep(logits, norm)
    logits[1] = -INF
    mask = kernel.keep(logits, norm)
    assert not mask[1].any()
    assert torch.equal(mask[::2], expected[::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one norm expanded."""
    logits, norm = rows_of("plain", 3, 777, device), torch.tensor(True, device=device).expand(3)
    assert torch.equal(kernel.keep(logits.T.contiguous().T, norm), kernel.keep(logits, norm.clone()))


@on_devices
def test_an_empty_batch_keeps_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    assert kernel.keep(torch.zeros(0, 100, device=device), _norm(0, device)).shape == (0, 100)
