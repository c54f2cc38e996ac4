"""The kernels that mend a logits processor's rows against their definition: every bit."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of

from midstep import guards
from midstep.guards import FAULTS

mending = pytest.importorskip("midstep.mending", reason="Triton is not installed")

poison = kernel_cases.poison
NAN, EMPTY = 1 + FAULTS.index("nan"), 1 + FAULTS.index("empty")


@on_devices
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_mended_alike(rows: int, vocabulary: int, kind: str, device: str) -> None:
    """A row that was moved, and of three rows one with a number that is none, and one that is empty."""
    before = rows_of(kind, rows, vocabulary, device, pad=vocabulary % 3)
    logits = before * 0.5 + 1.0
    logits[-1, vocabulary // 2] = torch.nan if vocabulary % 2 else INF
    logits[rows // 2] = -INF if rows > 2 else logits[rows // 2]
    expected, found = guards._mended(logits, before), mending.mended(logits, before)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    # where the token was masked before, what is written there does not count
    assert found[1][-1] == (0 if before[-1, vocabulary // 2] == -INF and vocabulary > 1 else NAN)


@on_devices
def test_what_was_masked_stays_so_and_what_was_empty_is_no_fault(device: str) -> None:
    before = rows_of("plain", 3, 5000, device)
    before[0, ::2] = -INF
    before[1] = -INF
    logits = torch.zeros_like(before)
    logits[2] = -INF
    found, fault = mending.mended(logits, before)
    assert (found[0, ::2] == -INF).all()
    assert (found[0, 1::2] == 0).all()
    assert fault.tolist() == [0, 0, EMPTY]
    assert torch.equal(found[2], before[2])
    assert mending.mended(logits[:0], before[:0])[0].shape == (0, 5000)


@on_devices
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_rule_keeps_is_kept_alike(rows: int, vocabulary: int, kind: str, device: str) -> None:
    """Of the rows, one of which it would leave nothing; tokens that it takes, that stay, and that were masked."""
    logits = rows_of(kind, rows, vocabulary, device, pad=vocabulary % 3)
    random = torch.Generator().manual_seed(vocabulary)
    keep = torch.rand(rows, vocabulary + 3, generator=random)[:, :vocabulary].to(device) < 0.5
    keep[rows // 2] = False
    token = torch.randint(vocabulary, (rows,), generator=random).to(device)
    expected, found = guards._kept(logits, keep, token), mending.kept(logits, keep, token)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert found[1][rows // 2]


@on_devices
def test_a_row_without_a_token_is_not_emptied(device: str) -> None:
    logits = rows_of("plain", 3, 5000, device)
    logits[1] = -INF
    keep = torch.ones((), dtype=torch.bool, device=device).expand(3, 5000)
    token = torch.tensor([4, 0, 4999], device=device)
    left, empty, taken = mending.kept(logits, keep, token)
    assert torch.equal(left, logits)
    assert not empty.any()
    assert not taken.any()
    assert mending.kept(logits[:0], keep[:0], token[:0])[0].shape == (0, 5000)
