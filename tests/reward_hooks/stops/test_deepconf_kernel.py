"""DeepConf's kernels against their definitions, in the interpreter and on a GPU."""

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_deepconf import reference

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_deepconf.kernel")

poison = kernel_cases.poison


def _k(rows: int, device: str) -> Tensor:
    return torch.tensor([20, 1, 32, 7, 2][:rows], device=device)


def _exact(logits: Tensor, k: Tensor) -> Tensor:
    """Work the confidence out in float64."""
    best = -logits.double().log_softmax(-1).topk(min(32, logits.shape[1])).values
    counted = (torch.arange(best.shape[1], device=best.device) < k[:, None]) & best.isfinite()
    return best.where(counted, 0.0).sum(-1) / counted.sum(-1)


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_confidences_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Within float32 of float64, and of the definition, whose own sum of a large row is less exact."""
    logits, k = rows_of(kind, rows, vocabulary, device, pad=61), _k(rows, device)
    result = kernel.confidence(logits, k)
    assert result.dtype == torch.float32
    # At 100 a logit itself is known to 4e-6.
    assert torch.allclose(result.double(), _exact(logits, k), rtol=1e-6, atol=1e-5 if kind == "shifted" else 3e-6)
    assert torch.allclose(result, reference.confidence(logits, k), rtol=2e-6, atol=2e-5)


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_confidences_agree_in_bfloat16(device: str, kind: str) -> None:
    """bfloat16 is read as float32."""
    logits, k = rows_of(kind, 5, 5001, device, torch.bfloat16), _k(5, device)
    assert torch.equal(kernel.confidence(logits, k), kernel.confidence(logits.float(), k))


@on_devices
@pytest.mark.parametrize("k", [1, 19, 32])
def test_the_best_tokens_are_found_wherever_they_are(device: str, k: int) -> None:
    """All in one group of 64, spread over all tiles, or as ties across many groups."""
    logits = torch.zeros(3, 20000, device=device)
    logits[0, 12800:12840] = torch.arange(40.0, device=device)
    logits[1, 3::487] = torch.arange(42.0, device=device)
    logits[2, ::300] = 5.0
    column = torch.full((3,), k, device=device)
    assert torch.allclose(kernel.confidence(logits, column).double(), _exact(logits, column), rtol=1e-6)


@on_devices
def test_a_row_has_the_same_confidence_alone(device: str) -> None:
    """To the bit."""
    logits, k = rows_of("plain", 5, 9001, device), _k(5, device)
    together = kernel.confidence(logits, k)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        assert torch.equal(kernel.confidence(logits[rows], k[rows]), together[rows])


@on_devices
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, under the interpreter: log 0 and 0 / 0
def test_a_row_without_a_token_has_no_confidence(device: str) -> None:
    """Nor does it disturb its neighbour."""
    logits, k = rows_of("plain", 3, 5000, device), _k(3, device)
    expected = kernel.confidence(logits, k)
    logits[1] = -INF
    result = kernel.confidence(logits, k)
    assert result.isnan().tolist() == [False, True, False]
    assert torch.equal(result[::2], expected[::2])


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one k expanded."""
    logits, k = rows_of("plain", 3, 777, device), torch.tensor(20, device=device).expand(3)
    assert torch.equal(kernel.confidence(logits.T.contiguous().T, k), kernel.confidence(logits, k.contiguous()))


@on_devices
@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize("width", [1, 7, 2048, 5000])
def test_window_means_are_equal(device: str, width: int, pad: int) -> None:
    """In every bit, before the window is full, when it is, and after; cells never stored hold NaN."""
    random = torch.Generator().manual_seed(width)
    position = torch.tensor([0, 1, width - 1, width, 3 * width + 2, 10 * width]).to(device)
    window = torch.tensor([width, 1, width, max(width // 2, 1), width, max(width - 1, 1)]).to(device)
    ring = torch.randn(6, width + pad, generator=random).to(device)[:, :width]
    ring[0] = float("nan")
    value = torch.randn(6, generator=random).to(device)
    before = ring.clone()
    found, expected = (
        window_mean(ring, value, position, window) for window_mean in (kernel.window_mean, reference.window_mean)
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.nan_to_num(-77.0), other.nan_to_num(-77.0))
    assert torch.equal(ring.nan_to_num(-77.0), before.nan_to_num(-77.0)), "the caller's ring was written to"


@on_devices
def test_a_padded_row_stays_inside_its_ring(device: str) -> None:
    """Its window and position may be any numbers; the two ways still agree."""
    numbers = torch.tensor([-5, 0, 10**12, 7], device=device)
    arguments = torch.zeros(4, 3, device=device), torch.ones(4, device=device), numbers, numbers.flip(0)
    for one, other in zip(kernel.window_mean(*arguments), reference.window_mean(*arguments), strict=True):
        assert torch.equal(one, other)


@on_devices
def test_an_empty_batch_has_no_confidence(device: str) -> None:
    """R = 0 launches nothing."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    assert kernel.confidence(torch.zeros(0, 50, device=device), none).shape == (0,)
    ring, mean = kernel.window_mean(torch.zeros(0, 4, device=device), none.float(), none, none)
    assert (ring.shape, mean.shape) == ((0, 4), (0,))
