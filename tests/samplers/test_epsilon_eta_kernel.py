"""Epsilon's and eta's kernels against their definitions, in the interpreter and on a GPU: equal but at thresholds."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_epsilon_eta import reference

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_epsilon_eta.kernel")

poison = kernel_cases.poison
both = pytest.mark.parametrize("name", ["epsilon", "eta"])


def _cutoff(rows: int, device: str) -> Tensor:
    return torch.tensor([3e-4, 0.05, 0.9, 1e-6, 0.002][:rows], device=device)


def _log_threshold(name: str, log_p: Tensor, cutoff: Tensor) -> Tensor:
    """Work the threshold out in float64, without the bound that lets the best token stay."""
    entropy = torch.special.entr(log_p.exp()).sum(-1)
    log_cutoff = cutoff.double().log()
    return log_cutoff if name == "epsilon" else torch.minimum(log_cutoff, log_cutoff / 2 - entropy)


def _agrees(name: str, mask: Tensor, logits: Tensor, cutoff: Tensor) -> None:
    """Demand the definition's mask but for tokens within 1e-4 nats of the threshold."""
    assert mask.dtype == torch.bool
    log_p = logits.double().log_softmax(-1)
    near = (log_p - _log_threshold(name, log_p, cutoff)[:, None]).abs() <= 1e-4
    differs = mask != getattr(reference, name)(logits, cutoff)
    assert not (differs & ~near).any(), (differs & ~near).nonzero().tolist()
    assert mask[logits == logits.amax(-1, keepdim=True)].all(), "a best token was lost"


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_masks_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Eta: each row with its own cutoff, and what lies between two rows never read."""
    logits, cutoff = rows_of(kind, rows, vocabulary, device, pad=61), _cutoff(rows, device)
    _agrees("eta", kernel.eta(logits, cutoff), logits, cutoff)


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES[:-2])
def test_masks_agree_without_the_entropy(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Epsilon, whose kernel is eta's but for the rule."""
    logits, cutoff = rows_of(kind, rows, vocabulary, device, pad=61), _cutoff(rows, device)
    _agrees("epsilon", kernel.epsilon(logits, cutoff), logits, cutoff)


@on_devices
@both
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_masks_agree_in_bfloat16(device: str, kind: str, name: str) -> None:
    """bfloat16 is read as float32."""
    logits, cutoff = rows_of(kind, 5, 5001, device, torch.bfloat16), _cutoff(5, device)
    mask = getattr(kernel, name)(logits, cutoff)
    _agrees(name, mask, logits.float(), cutoff)
    assert torch.equal(mask, getattr(kernel, name)(logits.float(), cutoff))


@on_devices
@both
@pytest.mark.parametrize("cutoff", [3e-4, 0.05])
def test_the_threshold_is_known_to_a_few_parts_in_10000(device: str, name: str, cutoff: float) -> None:
    """A token 3e-4 nats above it stays, and one 3e-4 below does not, in a row of two tiles."""
    column = torch.full((2,), cutoff)
    row = rows_of("plain", 1, 5001, "cpu")[0].double()
    for _ in range(50):
        log_p = row.log_softmax(-1)
        row[4500] = _log_threshold(name, log_p, column[:1]) + row.logsumexp(-1)
    logits = row.float().to(device).repeat(2, 1)
    logits[:, 4500] += torch.tensor([3e-4, -3e-4], device=device)
    for keep in (getattr(kernel, name), getattr(reference, name)):
        assert keep(logits, column.to(device))[:, 4500].tolist() == [True, False]


@on_devices
@both
def test_a_row_has_the_same_mask_alone(device: str, name: str) -> None:
    """To the bit."""
    keep = getattr(kernel, name)
    logits, cutoff = rows_of("plain", 5, 9001, device), _cutoff(5, device)
    together = keep(logits, cutoff)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(keep(logits[rows], cutoff[rows]), together[rows])


@on_devices
@both
def test_a_row_without_a_token_keeps_none(device: str, name: str) -> None:
    """Nor does it disturb its neighbour."""
    keep = getattr(kernel, name)
    logits, cutoff = rows_of("plain", 3, 5000, device), _cutoff(3, device)
    expected = keep(logits, cutoff)
    logits[1] = -INF
    mask = keep(logits, cutoff)
    assert not mask[1].any()
    assert torch.equal(mask[::2], expected[::2])


@on_devices
@both
def test_any_layout_is_read_right(device: str, name: str) -> None:
    """Columns that are not adjacent, and one cutoff expanded."""
    keep = getattr(kernel, name)
    logits, cutoff = rows_of("plain", 3, 777, device), torch.tensor(0.01, device=device).expand(3)
    assert torch.equal(keep(logits.T.contiguous().T, cutoff), keep(logits, cutoff.clone()))


@on_devices
@both
def test_an_empty_batch_keeps_nothing(device: str, name: str) -> None:
    """R = 0 launches nothing."""
    keep = getattr(kernel, name)
    assert keep(torch.zeros(0, 100, device=device), torch.zeros(0, device=device)).shape == (0, 100)
