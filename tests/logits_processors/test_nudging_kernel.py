"""Nudging's kernels against their definition, in the interpreter and on a GPU."""

from typing import NamedTuple

import kernel_cases
import pytest
import torch
from kernel_cases import INF, KINDS, SIZES, on_devices, rows_of
from torch import Tensor

from midstep_nudging.reference import BASE, BITS, NUDGE, nudge

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_nudging.kernel")

poison = kernel_cases.poison


class Case(NamedTuple):
    """What both take."""

    logits: Tensor
    nudger: Tensor
    mode: Tensor
    threshold: Tensor
    ends: Tensor
    starts: Tensor

    def some(self, rows: Tensor | slice) -> "Case":
        return Case(*(column[rows] for column in self))


def case(kind: str, rows: int, vocabulary: int, device: str, dtype: torch.dtype = torch.float32, turn: int = 0) -> Case:
    """Make a case; `turn` shifts which row has which mode, threshold, ends and words."""
    logits = rows_of(kind, rows, vocabulary, device, dtype, pad=61)
    nudger = rows_of("plain", rows + 1, vocabulary, device, dtype, pad=13)[1:]
    if vocabulary > 7:
        nudger[0, ::3] = -INF
    at = torch.arange(rows, device=device) + turn
    best, theirs = logits.float().argmax(-1), nudger.float().masked_fill(logits.isneginf(), -INF).argmax(-1)
    nudger[at % 4 == 3] = logits[at % 4 == 3]  # they agree
    other = torch.randint(vocabulary, (rows,), generator=torch.Generator().manual_seed(turn)).to(device)
    ends = torch.stack((torch.where(at % 5 == 1, best, other), torch.where(at % 5 == 2, theirs, -1), other * 0 - 1), 1)
    words = -(-vocabulary // BITS)
    drawn = torch.randint(1 << BITS, (rows, words), generator=torch.Generator().manual_seed(vocabulary + turn))
    drawn[at.cpu() % 3 == 0] = (1 << BITS) - 1
    threshold = torch.tensor([0.0, 0.05, 0.4, 1.0], device=device)[at // 2 % 4]
    return Case(logits, nudger, torch.where(at % 2 == 0, BASE, NUDGE), threshold, ends, drawn.to(device))


def agree(made: Case) -> Tensor:
    """To the bit: rows are copied. But where the base's probability is next to the threshold."""
    left, mode = kernel.nudge(*made)
    expected, turns = nudge(*made)
    assert (left.dtype, mode.dtype) == (torch.float32, torch.int64)
    clear = (made.logits.float().softmax(-1).amax(-1) - made.threshold).abs() > 1e-5
    clear |= (made.threshold == 0.0) | (made.logits.isfinite().sum(-1) < 2)
    assert torch.equal(mode[clear], turns[clear])
    assert torch.equal(left[clear], expected[clear])
    return mode


@on_devices
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocabulary"), SIZES)
def test_rows_and_turns_agree(device: str, rows: int, vocabulary: int, kind: str) -> None:
    """Each row with its own mode, threshold, ends and words; what lies between two rows is never read."""
    for turn in range(0, 3 if vocabulary > 30_000 else 12, 3):
        agree(case(kind, rows, vocabulary, device, turn=turn))


@on_devices
def test_every_turn_is_taken(device: str) -> None:
    """The cases have them all: from each mode to each."""
    made = case("plain", 120, 257, device)
    after = agree(made)
    assert {(a, b) for a, b in zip(made.mode.tolist(), after.tolist(), strict=True)} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@on_devices
@pytest.mark.parametrize("kind", ["plain", "masked", "ties"])
def test_they_agree_in_bfloat16(device: str, kind: str) -> None:
    """Read as float32."""
    made = case(kind, 12, 5001, device, torch.bfloat16)
    agree(made)
    wide = made._replace(logits=made.logits.float(), nudger=made.nudger.float())
    assert all(torch.equal(a, b) for a, b in zip(kernel.nudge(*made), kernel.nudge(*wide), strict=True))


@on_devices
def test_what_is_no_number_is_never_drawn(device: str) -> None:
    """NaN and infinities of the nudger are -inf; rows without a token disturb nobody."""
    made = case("plain", 12, 5001, device)
    made.nudger[:, 5::7] = torch.nan
    made.nudger[:, 6::7] = INF
    made.nudger[4], made.nudger[7] = -INF, torch.nan
    made.logits[9], made.logits[5, 1:] = -INF, -INF
    agree(made)
    left, _ = kernel.nudge(*made)
    assert not left.isnan().any()
    assert not left.isposinf().any()
    there = torch.arange(12, device=device) != 9
    assert left.isfinite().any(-1)[there].all()
    assert left[made.logits.isneginf()].isneginf().all()


@on_devices
def test_a_row_is_the_same_alone(device: str) -> None:
    """To the bit, in any order; and in any layout."""
    made = case("plain", 12, 9001, device)
    together = kernel.nudge(*made)
    for rows in (slice(3, 4), torch.tensor([9, 0, 5], device=device)):
        alone = kernel.nudge(*made.some(rows))
        assert all(torch.equal(a, b[rows]) for a, b in zip(alone, together, strict=True))
    turned = made._replace(logits=made.logits.T.contiguous().T, nudger=made.nudger.T.contiguous().T)
    assert all(torch.equal(a, b) for a, b in zip(kernel.nudge(*turned), together, strict=True))


@on_devices
def test_no_ends_and_no_rows(device: str) -> None:
    made = case("plain", 12, 100, device)
    agree(made._replace(ends=made.ends[:, :0]))
    left, mode = kernel.nudge(*made.some(slice(0, 0)))
    assert (left.shape, mode.shape) == ((0, 100), (0,))
