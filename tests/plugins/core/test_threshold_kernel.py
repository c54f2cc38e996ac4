"""Row statistics in Triton against their definition, and the batch that does not matter."""

import kernel_cases
import pytest
import torch
from kernel_cases import KINDS, SIZES, on_devices, rows_of

from midstep.statistics import _statistics

pytest.importorskip("triton", reason="Triton is not installed")
threshold = pytest.importorskip("midstep.threshold")

poison = kernel_cases.poison


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_statistics_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """To float32's accuracy; the maximum and the count exactly."""
    logits = rows_of(kind, rows, vocabulary, device, pad=61)
    found, expected = threshold.statistics(logits), _statistics(logits)
    assert torch.equal(found.top, expected.top)
    assert torch.equal(found.finite, expected.finite)
    for name in ("lse", "entropy", "collision", "spread"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=2e-5, atol=2e-5, msg=name)


@on_devices
def test_a_row_has_the_same_bits_in_any_batch(device: str) -> None:
    """The split of a row depends on the vocabulary alone."""
    logits = rows_of("plain", 5, 9001, device)
    together = threshold.statistics(logits)
    for row in range(5):
        alone = threshold.statistics(logits[row : row + 1])
        assert all(torch.equal(one, many[row : row + 1]) for one, many in zip(alone, together, strict=True))


@on_devices
def test_bfloat16_is_read_as_float32(device: str) -> None:
    """The numbers are those of the widened row."""
    logits = rows_of("plain", 2, 5001, device, torch.bfloat16)
    wide = threshold.statistics(logits.float())
    assert all(torch.equal(one, other) for one, other in zip(threshold.statistics(logits), wide, strict=True))


@on_devices
def test_an_empty_batch_has_no_statistics(device: str) -> None:
    """R = 0 launches nothing."""
    assert threshold.statistics(torch.zeros(0, 100, device=device)).top.shape == (0,)
