"""Top-a's kernel against its definition, in the interpreter or on a GPU."""

import kernel_cases
import pytest
import torch
from kernel_cases import KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_top_a.reference import keep

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_top_a.kernel")

poison = kernel_cases.poison
A, POWER = (0.2, 0.0, 0.7), (2.0, 3.0, 1.0)


def _columns(rows: int, device: str) -> tuple[Tensor, Tensor]:
    return torch.tensor(A[:rows], device=device), torch.tensor(POWER[:rows], device=device)


def agree(mask: Tensor, logits: Tensor, a: Tensor, power: Tensor) -> None:
    """Demand equal masks, but for tokens within 1e-4 of the threshold; and the best token in both."""
    logits = logits.float()
    best = logits.log_softmax(-1).amax(-1)
    threshold = logits.amax(-1) + a.log() + (power - 1) * best
    near = (logits - threshold[:, None]).abs() < 1e-4
    assert torch.equal(mask | near, keep(logits, a, power) | near)
    assert mask.gather(1, logits.argmax(-1, keepdim=True)).all()


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_masks_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own parameters, and what lies between two rows never read."""
    logits, columns = rows_of(kind, rows, vocabulary, device, pad=61), _columns(rows, device)
    mask = kernel.keep(logits, *columns)
    assert mask.dtype == torch.bool
    agree(mask, logits, *columns)


@on_devices
def test_masks_agree_in_bfloat16(device: str) -> None:
    """bfloat16 is read as float32."""
    logits, columns = rows_of("masked", 3, 5001, device, torch.bfloat16), _columns(3, device)
    agree(kernel.keep(logits, *columns), logits, *columns)


@on_devices
def test_an_empty_batch_keeps_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    none = torch.zeros(0, device=device)
    assert kernel.keep(torch.zeros(0, 100, device=device), none, none).shape == (0, 100)
