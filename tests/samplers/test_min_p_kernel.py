"""Min-p's kernel against its definition, in the interpreter and on a GPU: equal in every bit."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_min_p.reference import keep

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_min_p.kernel")

poison = kernel_cases.poison
P = (0.05, 0.0, 1.0, 0.7, 0.001)


def _p(rows: int, device: str) -> Tensor:
    return torch.tensor(P[:rows], device=device)


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_masks_are_equal(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own p, and what lies between two rows never read."""
    logits, p = rows_of(kind, rows, vocabulary, device, pad=61), _p(rows, device)
    mask = kernel.keep(logits, p)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, keep(logits, p))


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_masks_are_equal_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32."""
    logits, p = rows_of(kind, 5, 5001, device, torch.bfloat16), _p(5, device)
    assert torch.equal(kernel.keep(logits, p), keep(logits, p))


@on_devices
def test_tokens_at_the_threshold_agree(device: str) -> None:
    """The threshold is the same float32 in both, so a token exactly on it stays in both."""
    logits, p = rows_of("plain", 5, 9001, device), _p(5, device)
    threshold = logits.amax(-1) + p.log()
    logits[:, ::7] = threshold[:, None]
    logits[:, ::5] = torch.nextafter(threshold, torch.full_like(threshold, -INF))[:, None]
    mask = kernel.keep(logits, p)
    assert torch.equal(mask, keep(logits, p))
    assert mask[0, 7]
    assert not mask[0, 5]


@on_devices
def test_a_row_without_a_token_keeps_none(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits, p = rows_of("plain", 3, 5000, device), _p(3, device)
    logits[1] = -INF
    mask = kernel.keep(logits, p)
    assert not mask[1].any()
    assert torch.equal(mask, keep(logits, p))


@on_devices
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, under the interpreter
def test_p_0_keeps_a_row_with_a_forced_token(device: str) -> None:
    """+inf + log 0 is NaN, which keeps everything."""
    logits, p = rows_of("masked", 2, 50, device), torch.tensor([0.0, 0.5], device=device)
    logits[:, 3] = INF
    assert torch.equal(kernel.keep(logits, p), keep(logits, p))


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one p expanded."""
    logits, p = rows_of("plain", 3, 777, device), torch.tensor(0.1, device=device).expand(3)
    assert torch.equal(kernel.keep(logits.T.contiguous().T, p), keep(logits, p))


@on_devices
def test_an_empty_batch_keeps_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    assert kernel.keep(torch.zeros(0, 100, device=device), torch.zeros(0, device=device)).shape == (0, 100)
