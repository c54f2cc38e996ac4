"""Typical sampling's kernels against their definition, in the interpreter and on a GPU: equal but at the last token."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, on_devices, rows_of
from torch import Tensor

from midstep_typical.reference import keep

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_typical.kernel")

poison = kernel_cases.poison
NEAR = 1e-4  # nats: distances that may change places
ROUNDING = 1e-5  # of a sum of probabilities


def _columns(rows: int, device: str) -> tuple[Tensor, Tensor]:
    mass, min_keep = (0.9, 0.2, 0.5, 0.97, 0.05), (1, 5, 100, 1, 3)
    return torch.tensor(mass[:rows], device=device), torch.tensor(min_keep[:rows], device=device)


def _agrees(mask: Tensor, logits: Tensor, mass: Tensor, min_keep: Tensor) -> None:
    """Demand, in float64, that the kept tokens are the nearest, are enough, and are not without the last of them."""
    assert mask.dtype == torch.bool
    assert not (mask & logits.isneginf()).any(), "a masked token stays"
    log_p = logits.double().log_softmax(-1)
    p, entropy = log_p.exp(), torch.special.entr(log_p.exp()).sum(-1, keepdim=True)
    distance = (log_p + entropy).abs()
    for row, kept in enumerate(mask):
        limit = distance[row][kept].max()
        dropped = distance[row][~kept & logits[row].isfinite()]
        assert not (dropped < limit - NEAR).any(), f"row {row}: a dropped token is nearer than a kept one"
        least = min(int(min_keep[row]), int(logits[row].isfinite().sum()))
        assert p[row][kept].sum() >= mass[row] - ROUNDING, f"row {row}: too little mass"
        assert kept.sum() >= least, f"row {row}: too few tokens"
        before = distance[row] < limit - NEAR
        assert p[row][before].sum() < mass[row] + ROUNDING or before.sum() < least, f"row {row}: too much stays"


def _check(kind: str, rows: int, vocabulary: int, device: str) -> None:
    logits, columns = rows_of(kind, rows, vocabulary, device, pad=61), _columns(rows, device)
    _agrees(kernel.keep(logits, *columns), logits, *columns)


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 1000), (1, 4099), (1, 151936)])
def test_masks_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own mass and least number, and what lies between two rows never read."""
    _check(kind, rows, vocabulary, device)


@on_devices
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 1), (3, 7), (2, 63), (1, 32001)])
def test_masks_agree_at_every_size(device: str, rows: int, vocabulary: int) -> None:
    """From one token to eight tiles."""
    _check("plain", rows, vocabulary, device)


@on_devices
def test_the_least_number_holds_for_a_large_vocabulary(device: str) -> None:
    """A tenth of the mass, but 3,000 tokens."""
    logits = rows_of("plain", 1, 151936, device)
    columns = torch.tensor([0.1], device=device), torch.tensor([3000], device=device)
    mask = kernel.keep(logits, *columns)
    _agrees(mask, logits, *columns)
    assert mask.sum() == 3000


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_masks_are_equal_where_nothing_is_near(device: str, kind: str) -> None:
    """A row of 300 whose last token is far from the next, and whose mass is far from the sum."""
    logits, columns = rows_of(kind, 3, 300, device), _columns(3, device)
    assert torch.equal(kernel.keep(logits, *columns), keep(logits, *columns))


@on_devices
def test_masks_agree_in_bfloat16(device: str) -> None:
    """bfloat16 is read as float32."""
    logits, columns = rows_of("plain", 1, 5001, device, torch.bfloat16), _columns(1, device)
    mask = kernel.keep(logits, *columns)
    _agrees(mask, logits.float(), *columns)
    assert torch.equal(mask, kernel.keep(logits.float(), *columns))


@on_devices
def test_two_distances_that_differ_in_their_last_bit_are_told_apart(device: str) -> None:
    """The second of these logits is 6e-8 nearer to the entropy, and has enough mass alone."""
    logits = torch.tensor([[1.0, 0.99999994, -1.0]], device=device)
    mass, min_keep = torch.tensor([0.3], device=device), torch.tensor([1], device=device)
    assert keep(logits, mass, min_keep).tolist() == [[False, True, False]]
    assert kernel.keep(logits, mass, min_keep).tolist() == [[False, True, False]]


@on_devices
def test_the_best_token_may_go_and_the_least_number_bring_it_back(device: str) -> None:
    """Token 1 is nearer to the entropy than token 0, then come the others in their order; the last two tie."""
    row = torch.tensor([[3.0, 2.5, 1.0, 0.0, -1.0, -2.0, -4.0, -4.0]], device=device)
    least = torch.tensor([1, 2, 5, 7, 10**12], device=device)
    mask = kernel.keep(row.expand(5, -1), torch.full((5,), 0.3, device=device), least)
    assert mask[0].nonzero()[:, 0].tolist() == [1]
    assert mask.sum(-1).tolist() == [1, 2, 5, 8, 8]


@on_devices
def test_a_mass_that_no_sum_reaches_keeps_everything(device: str) -> None:
    """A mass just below 1 may be more than the rounded probabilities add up to; 1.5 surely is."""
    logits = rows_of("masked", 2, 300, device)
    mask = kernel.keep(logits, torch.tensor([1.5, 0.99999994], device=device), torch.tensor([1, 2], device=device))
    assert torch.equal(mask[0], logits[0].isfinite())
    assert mask[1][logits[1].log_softmax(-1) > -14].all()


@on_devices
def test_a_row_has_the_same_mask_alone(device: str) -> None:
    """To the bit."""
    logits, (mass, min_keep) = rows_of("plain", 3, 4099, device), _columns(3, device)
    together = kernel.keep(logits, mass, min_keep)
    for rows in (slice(1, 2), torch.tensor([2, 0], device=device)):
        assert torch.equal(kernel.keep(logits[rows], mass[rows], min_keep[rows]), together[rows])


@on_devices
def test_a_row_without_a_token_keeps_none(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits, columns = rows_of("plain", 3, 500, device), _columns(3, device)
    expected = kernel.keep(logits, *columns)
    logits[1] = -INF
    mask = kernel.keep(logits, *columns)
    assert not mask[1].any()
    assert torch.equal(mask[::2], expected[::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one mass and least number expanded."""
    logits = rows_of("plain", 2, 777, device)
    mass, min_keep = torch.tensor(0.8, device=device).expand(2), torch.tensor(2, device=device).expand(2)
    expected = kernel.keep(logits, mass.clone(), min_keep.clone())
    assert torch.equal(kernel.keep(logits.T.contiguous().T, mass, min_keep), expected)


@on_devices
def test_an_empty_batch_keeps_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    none = torch.zeros(0, device=device)
    assert kernel.keep(torch.zeros(0, 100, device=device), none, none.long()).shape == (0, 100)
