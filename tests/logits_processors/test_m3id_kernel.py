"""M3ID's kernel against its definition, in the interpreter and on a GPU."""

import kernel_cases
import pytest
import torch
from kernel_cases import on_devices
from torch import Tensor

from midstep_m3id.reference import GATE, MASK, weigh

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_m3id.kernel")

poison = kernel_cases.poison


def columns(rows: int, device: str) -> list[Tensor]:
    """Return rows of every combination: early and late, sure and unsure, both modes, all bounds."""
    at = torch.arange(rows, device=device)
    top = (at * 37 % 23).float() - 11.0
    lse = top + (at % 7).float() / 3.0
    position = torch.tensor([0, 1, 10, 100, 7000], device=device)[at % 5]
    decay = torch.tensor([0.02, 0.0, 1.0, 1e-6], device=device)[at % 4]
    mode = torch.where(at % 3 == 0, GATE, MASK)
    threshold = torch.tensor([0.3, 0.0, 1.0, 0.7], device=device)[at // 3 % 4]
    plausible = torch.tensor([0.1, 0.0, 1.0], device=device)[at // 2 % 3]
    most = torch.tensor([10.0, 0.0, 100.0], device=device)[at // 5 % 3]
    return [top, lse, position, decay, mode, threshold, plausible, most]


@on_devices
@pytest.mark.parametrize("rows", [1, 7, 128, 1000])
def test_weights_and_floors_agree(device: str, rows: int) -> None:
    """To a rounding; a weight is 0 exactly where the definition's is."""
    given = columns(rows, device)
    found, expected = kernel.weigh(*given), weigh(*given)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=1e-6)
    assert torch.equal(found[0] == 0.0, expected[0] == 0.0)


@on_devices
def test_a_small_weight_keeps_its_digits(device: str) -> None:
    """The difference of two numbers near 1."""
    given = columns(1, device)
    given[2][:], given[3][:], given[5][:], given[1][:] = 1, 1e-6, 1.0, 5.0
    assert kernel.weigh(*given)[0].item() == pytest.approx(1e-6, rel=1e-5)


@on_devices
def test_a_row_has_the_same_weight_alone(device: str) -> None:
    """To the bit; and one parameter may be expanded."""
    given = columns(200, device)
    together = kernel.weigh(*given)
    for rows in (slice(150, 151), torch.tensor([4, 0], device=device)):
        alone = kernel.weigh(*(column[rows] for column in given))
        assert all(torch.equal(a, b[rows]) for a, b in zip(alone, together, strict=True))
    expanded = [column[:1].expand(3) for column in given]
    assert torch.equal(kernel.weigh(*expanded)[0], together[0][:1].expand(3))


@on_devices
def test_an_empty_batch_has_none(device: str) -> None:
    """R = 0 launches nothing."""
    assert [len(x) for x in kernel.weigh(*columns(0, device))] == [0, 0]
