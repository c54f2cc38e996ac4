"""Repetition's kernel against its definition, in the interpreter and on a GPU: equal in every number."""

from collections.abc import Sequence

import kernel_cases
import pytest
import torch
from kernel_cases import on_devices
from torch import Tensor

from midstep_repetition.reference import BLOCK, LONGEST_PERIOD, MOST, repeated

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_repetition.kernel")

poison = kernel_cases.poison
# times, period, least: the usual, the shortest, a long least, the extremes.
SETTINGS = ((4, 64, 32), (2, 1, 1), (3, 20, 500), (32, LONGEST_PERIOD, MOST), (2, LONGEST_PERIOD, 1))
KINDS = {
    "random": lambda at, random: torch.randint(0, 2, at.shape, generator=random),
    "all_equal": lambda at, _: torch.full_like(at, 5),
    "blocks": lambda at, _: at % 7,
    "long_blocks": lambda at, _: at % LONGEST_PERIOD,
    "loop_at_the_end": lambda at, _: torch.where(at < at.max() - 130, at, at % 3),
    "nothing": lambda at, _: at,
}


def _case(kind: str, lengths: Sequence[int], prompt: int, device: str) -> list[Tensor]:
    """Return histories [R, L] and all columns; beyond a row's length stands what would go on repeating."""
    random = torch.Generator().manual_seed(sum(lengths))
    at = torch.arange(max(lengths) + 70).repeat(len(lengths), 1)
    columns = [torch.tensor(column)[: len(lengths)] for column in zip(*SETTINGS, strict=True)]
    length = torch.tensor(lengths)
    return [t.to(device) for t in (KINDS[kind](at, random), length, (length - prompt).clamp_min(0), *columns)]


def _equal(case: Sequence[Tensor]) -> bool:
    found, expected = kernel.repeated(*case), repeated(*case)
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, 7, 63, BLOCK + 1, 1000])
def test_stretches_are_equal(device: str, length: int, kind: str) -> None:
    """Rows of several lengths beside each other, each with its own parameters."""
    lengths = [length, max(length - 1, 0), length, length // 2, length]
    assert _equal(_case(kind, lengths, length // 9, device))


@on_devices
@pytest.mark.parametrize("length", [MOST - 1, MOST + LONGEST_PERIOD, 2 * MOST])
def test_the_longest_stretches_are_equal(device: str, length: int) -> None:
    """They stop counting at the same token."""
    case = [value[3:] for value in _case("long_blocks", [length] * 4, 3, device)]
    assert _equal(case)
    assert int(kernel.repeated(*case)[0]) == min(length - 3, MOST + LONGEST_PERIOD)


@on_devices
def test_a_row_has_the_same_stretch_alone(device: str) -> None:
    """Whatever is beside it."""
    case = _case("random", [63, 300, 7, 400, 1000], 5, device)
    together = kernel.repeated(*case)
    for rows in (slice(3, 4), torch.tensor([4, 0], device=device)):
        alone = kernel.repeated(*(value[rows] for value in case))
        assert all(torch.equal(one, all_[rows]) for one, all_ in zip(alone, together, strict=True))


@on_devices
def test_any_layout_is_read_right(device: str) -> None:
    """Columns that are not adjacent, and one parameter expanded."""
    ids, *columns = _case("blocks", [63, 50, 7], 2, device)
    columns[2:] = [column[:1].expand(3) for column in columns[2:]]
    assert torch.equal(kernel.repeated(ids.T.contiguous().T, *columns)[0], repeated(ids, *columns)[0])


@on_devices
def test_an_empty_batch_has_no_stretch(device: str) -> None:
    """R = 0 launches nothing."""
    stretch, needed = kernel.repeated(*(value[:0] for value in _case("blocks", [9], 0, device)))
    assert (stretch.shape, needed.shape) == ((0,), (0,))
