"""The bookkeeping's kernels against their definitions: every bit, since nothing here is rounded."""

from typing import Any

import kernel_cases
import pytest
import torch
from kernel_cases import INF, on_devices
from torch import Tensor

from midstep import closing, opening
from midstep.closing import Kept, Left, Refusals, Terms
from midstep.guards import FAULTS

bookkeeping = pytest.importorskip("midstep.bookkeeping", reason="Triton is not installed")

poison = kernel_cases.poison
SLOTS, METHODS, RULES = 300, 3, 4
ROWS = (1, 2, 63, 64, 65, 130)


def numbers(random: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Return whole numbers, low <= x < high."""
    return torch.randint(low, high, shape, generator=random)


def memory(random: torch.Generator, slots: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Return tags and drawn tokens of which most are those of the positions before."""
    tag = torch.full((SLOTS, opening.DEPTH), -1)
    drawn = numbers(random, 0, 50, SLOTS, opening.DEPTH)
    known = numbers(random, 0, 3, len(slots)) > 0
    before = position - 1
    tag[slots, before % opening.DEPTH] = torch.where(known, before, before - opening.DEPTH)
    return tag, drawn


def distinct(random: torch.Generator, rows: int) -> Tensor:
    """Return slots, none of them twice, and none the scratch slot."""
    return torch.randperm(SLOTS - 1, generator=random)[:rows] + 1


@on_devices
@pytest.mark.parametrize("rows", ROWS)
def test_a_call_is_opened_alike(rows: int, device: str) -> None:
    """Thrown-away rows, first tokens, lost memory, other tokens than were drawn, and tokens that are not shown."""
    random = torch.Generator().manual_seed(rows)
    slots, position = distinct(random, rows), numbers(random, -3, 20, rows)
    tag, drawn = memory(random, slots, position)
    fed = torch.where(numbers(random, 0, 2, rows) > 0, drawn[slots, (position - 1) % opening.DEPTH], 7)
    fed = torch.where(numbers(random, 0, 5, rows) > 0, fed, -1)
    first, keeper = numbers(random, 1, 4, rows), numbers(random, 0, 4, rows)
    columns = [x.to(device) for x in (slots, position, fed, tag, drawn, first, keeper)]
    expected, found = opening._opened(*columns), bookkeeping.opened(*columns)
    for name in expected._fields:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    if rows > 60:
        assert set(expected.fault.tolist()) == {0, opening.STATE, opening.HISTORY}


def case(rows: int, traced: bool, room: int, device: str) -> tuple[Left, Refusals, Terms, Kept]:
    """Make a call's end: a few rows of every kind."""
    random = torch.Generator().manual_seed(rows)

    def some(share: int, *shape: int) -> Tensor:
        return numbers(random, 0, share, *shape) == 0

    slots, position = distinct(random, rows), numbers(random, -3, 20, rows)
    fault = torch.where(some(4, rows), numbers(random, 1, 1 + len(FAULTS), rows), 0)
    left = Left(
        position=position,
        written=torch.where(position >= 0, slots, opening.SCRATCH),
        token=numbers(random, 0, 1000, rows),
        rule=numbers(random, 0, 1 + METHODS, rows),
        fault=fault,
        culprit=torch.where(fault > 0, numbers(random, 1, 1 + METHODS, rows), 0),
        value=torch.randn(rows, generator=random),
        threshold=torch.where(some(2, rows), torch.nan, torch.randn(rows, generator=random)),
        end=some(4, rows),
        changed=some(3, rows, METHODS),
        trace=torch.rand(rows, 3, generator=random) if traced else None,
    )
    refusals = Refusals(some(3, rows, RULES), some(5, rows, RULES), torch.tensor([2, -1, 0, 1]))
    terms = Terms(some(2, rows), torch.where(some(2, rows), 2, -1))
    kept = Kept(
        torch.full((SLOTS, opening.DEPTH), -1),
        torch.full((SLOTS, opening.DEPTH), -1),
        torch.full((SLOTS, room), -1, dtype=torch.int32),
        torch.where(some(3, SLOTS), -1, numbers(random, 1, 12, SLOTS)),
    )
    return tuple(_to(part, device) for part in (left, refusals, terms, kept))  # type: ignore[return-value]


def _to(columns: Any, device: str) -> Any:
    return type(columns)(*(None if column is None else column.to(device) for column in columns))


def _copies(kept: Kept) -> Kept:
    return Kept(*(column.clone() for column in kept))


@on_devices
@pytest.mark.parametrize("ruled", [False, True], ids=["stages", "fused"])
@pytest.mark.parametrize(("traced", "room"), [(False, 0), (True, 0), (False, 24)])
@pytest.mark.parametrize("rows", ROWS)
def test_a_call_is_settled_alike(rows: int, traced: bool, room: int, ruled: bool, device: str) -> None:
    """The tokens, the record, the memory: the scratch slot aside, to which several rows may write."""
    left, refusals, terms, kept = case(rows, traced, room, device)
    theirs, mine = _copies(kept), _copies(kept)
    expected = closing._settled(left.token, left, refusals if ruled else None, terms, theirs)
    found = bookkeeping.settled(left.token, left, refusals if ruled else None, terms, mine)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.nan_to_num(nan=-9.0), other.nan_to_num(nan=-9.0))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one[1:], other[1:])
    if rows > 60:
        assert (expected[0] != left.token).any(), "no row was ended by its end token"


def test_a_rule_that_leaves_nothing_is_blamed_once() -> None:
    """Computed by hand: the first rule in order, and only where nothing was at fault before."""
    left, _, terms, kept = case(3, False, 0, "cpu")
    zero = torch.zeros(3, dtype=torch.int64)
    left = left._replace(fault=torch.tensor([0, 0, 1]), culprit=torch.tensor([0, 0, 3]), changed=left.changed & False)
    terms = Terms(torch.tensor([True, False, False]), zero - 1)
    empty = torch.tensor([[True, True], [False, True], [True, False]])
    refusals = Refusals(torch.tensor([[False, True], [False, False], [True, False]]), empty, torch.tensor([1, 0]))
    _, values = closing._settled(left.token, left._replace(end=zero > 0), refusals, terms, kept)
    assert values[:, 3].tolist() == [closing.EMPTY, closing.EMPTY, 1]
    assert values[:, 4].tolist() == [2, 1, 3]
    assert values[:, 7].tolist() == [1, 0, 0]
    assert values[:, 8:].tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocabulary", "pad"), [(1, 0), (7, 3), (4096, 0), (4099, 5), (32001, 0)])
def test_rows_are_written_alike(vocabulary: int, pad: int, dtype: torch.dtype, device: str) -> None:
    """Only those named, companions' too, and nothing beyond a row."""
    wide = torch.randn(9, vocabulary + pad, device=device).to(dtype)
    rows, of = torch.tensor([5, 0, 8, 2], device=device), torch.tensor([0, 1, 2, 1], device=device)
    token = torch.tensor([0, vocabulary - 1, vocabulary // 2], device=device)
    found, expected = wide.clone(), wide.clone()
    bookkeeping.written(found[:, :vocabulary], rows, of, token)
    closing._written(expected[:, :vocabulary], rows, of, token)
    assert torch.equal(found, expected)
    assert (expected[5, 1:vocabulary] == -INF).all()
