"""XTC's kernels against their definition, in the interpreter and on a GPU."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_xtc.reference import keep

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_xtc.kernel")

poison = kernel_cases.poison


def _columns(logits: Tensor, special: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Return thresholds that a few tokens reach, coins, and special ids: the best of row 0, the worst of the others."""
    rows, vocabulary = logits.shape
    device = logits.device
    few = logits.float().softmax(-1).topk(min(6, vocabulary)).values[:, -1].clamp_min(1e-30)
    applies = torch.tensor([True, True, False, True, True], device=device)[:rows]
    ids = torch.full((rows, special), -1, device=device)
    if special:
        ids[:, -1] = logits.argmin(-1)
        ids[0, -1] = logits[0].argmax()
    return few * 0.999, applies, ids


def _agree(logits: Tensor, columns: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Demand the definition's mask, or that of a threshold no farther than 1e-4 of the logarithm; return the mask."""
    threshold, *rest = columns
    found = kernel.keep(logits, *columns)
    assert found.dtype == torch.bool
    agree = torch.zeros_like(columns[1])
    for factor in (1.0, 1 - 1e-4, 1 + 1e-4):
        if not agree.all():
            agree |= (found == keep(logits, threshold * factor, *rest)).all(-1)
    assert agree.all()
    return found


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_xtc_masks_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own threshold, coin and special ids, and what lies between two rows never read."""
    logits = rows_of(kind, rows, vocabulary, device, pad=61)
    _agree(logits, _columns(logits))


@on_devices
def test_xtc_masks_agree_without_special_ids(device: str) -> None:
    """Of six top choices five go, where the coin says so."""
    logits = rows_of("plain", 3, 5000, device)
    assert (~_agree(logits, _columns(logits, special=0))).sum(-1).tolist() == [5, 5, 0]


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_xtc_masks_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32."""
    logits = rows_of(kind, 5, 5001, device, torch.bfloat16)
    columns = _columns(logits)
    assert torch.equal(_agree(logits, columns), kernel.keep(logits.float(), *columns))


@on_devices
def test_of_equal_top_choices_the_last_stays(device: str) -> None:
    """In one tile and across tiles."""
    logits = torch.zeros(2, 9000, device=device)
    logits[0, [5, 6, 7]] = 20.0
    logits[1, [5, 4500, 8999]] = 20.0
    threshold, applies = torch.full((2,), 0.2, device=device), torch.ones(2, dtype=torch.bool, device=device)
    mask = kernel.keep(logits, threshold, applies, torch.zeros(2, 0, dtype=torch.int64, device=device))
    assert (~mask).nonzero().tolist() == [[0, 5], [0, 6], [1, 5], [1, 4500]]


@on_devices
@pytest.mark.parametrize("width", [1, 3, 16])
def test_a_row_where_a_special_token_would_be_removed_is_left_alone(device: str, width: int) -> None:
    """Wherever its id stands among the ids; the least likely top choice is not removed, so it does no harm."""
    logits = torch.zeros(3, 9000, device=device)
    logits[:, 17], logits[:, 8000] = 20.0, 19.0
    special = torch.full((3, width), -1, device=device)
    special[0, -1], special[1, 0], special[2, -1] = 17, 8000, 44
    threshold, applies = torch.full((3,), 0.1, device=device), torch.ones(3, dtype=torch.bool, device=device)
    assert (~kernel.keep(logits, threshold, applies, special)).nonzero().tolist() == [[1, 17], [2, 17]]


@on_devices
def test_a_row_has_the_same_mask_alone(device: str) -> None:
    """To the bit."""
    logits = rows_of("plain", 5, 9001, device)
    columns = _columns(logits)
    together = kernel.keep(logits, *columns)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(kernel.keep(logits[rows], *(column[rows] for column in columns)), together[rows])


@on_devices
def test_a_row_without_a_token_keeps_none(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits = rows_of("plain", 3, 5000, device)
    columns = _columns(logits)
    expected = kernel.keep(logits, *columns)
    logits[1] = -INF
    mask = kernel.keep(logits, *columns)
    assert not mask[1].any()
    assert torch.equal(mask[::2], expected[::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one threshold expanded."""
    logits = rows_of("plain", 3, 777, device)
    _, applies, special = _columns(logits)
    threshold = torch.tensor(0.02, device=device).expand(3)
    found = kernel.keep(logits.T.contiguous().T, threshold, applies, special.T.contiguous().T)
    assert torch.equal(found, kernel.keep(logits, threshold, applies, special))
    assert not found.all()


@on_devices
def test_an_empty_batch_keeps_nothing(device: str) -> None:
    """R = 0 launches nothing."""
    logits = torch.zeros(0, 100, device=device)
    assert kernel.keep(logits, logits[:, 0], logits[:, 0] > 0, logits[:, :1].long()).shape == (0, 100)
