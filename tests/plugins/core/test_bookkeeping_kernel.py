"""The bookkeeping's kernels against their definitions: every bit, since nothing here is rounded."""

from typing import Any

import kernel_cases
import pytest
import torch
from kernel_cases import INF, on_devices
from torch import Tensor

from midstep import closing, deciding, memory, opening
from midstep.closing import Kept, Left, Refusals, Terms
from midstep.deciding import Acts
from midstep.guards import FAULTS
from midstep.methods import FORCE

bookkeeping = pytest.importorskip("midstep.bookkeeping", reason="Triton is not installed")

poison = kernel_cases.poison
SLOTS, METHODS, RULES = 300, 3, 4
ROWS = (1, 2, 63, 64, 65, 130)


def numbers(random: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Return whole numbers, low <= x < high."""
    return torch.randint(low, high, shape, generator=random)


def remembered(random: torch.Generator, slots: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
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
    tag, drawn = remembered(random, slots, position)
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


@on_devices
@pytest.mark.parametrize("everyone", [True, False])
@pytest.mark.parametrize("rows", ROWS)
def test_a_stop_is_heard_alike(rows: int, everyone: bool, device: str) -> None:
    """Too early, overruled, ends, sequences at once and those that wait; of rows that use the stop and others."""
    random = torch.Generator().manual_seed(rows)
    users = torch.arange(rows) if everyone else torch.randperm(rows, generator=random)[: rows // 2 + 1].sort().values
    within = torch.full((rows,), -1)
    within[users] = torch.arange(len(users))
    count = len(users)
    action = numbers(random, 0, FORCE + 3, count)
    instead = torch.where(numbers(random, 0, 2, count) > 0, numbers(random, 0, 50, count), -1)
    said = action, torch.randn(count, generator=random), torch.randn(count, generator=random), instead
    where = numbers(random, 0, 4, count), within, numbers(random, -2, 9, rows), numbers(random, 0, 9, rows)
    before = numbers(random, 0, 2, rows)
    blank = torch.full((rows,), torch.nan)
    now = Acts(before, before > 0, blank, torch.where(before > 0, 1.5, blank), before * 3)
    columns = [x.to(device) for x in (*said, *where)]
    now = Acts(*(x.to(device) for x in now))
    expected, found = deciding._decided(*columns, 2, now), bookkeeping.decided(*columns, 2, now)
    for name in Acts._fields:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one.nan_to_num(nan=-9.0), other.nan_to_num(nan=-9.0)), name
    if rows > 60:
        assert {2, 3} >= set(expected.rule[before.to(device) == 0].tolist()) - {0}
        assert (expected.forced != now.forced).any()


@on_devices
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
@pytest.mark.parametrize("shape", [(), (5,), (1500,), (2, 3)])
@pytest.mark.parametrize("init", ["number", "column", "large"])
def test_a_state_is_recalled_alike(shape: tuple[int, ...], dtype: torch.dtype, init: str, device: str) -> None:
    """At first positions and later ones; from a number, from each row's own, and from one that float32 has not."""
    random = torch.Generator().manual_seed(len(shape))
    rows = 20
    ring = numbers(random, 0, 2**40, SLOTS, opening.DEPTH, *shape).to(dtype).to(device)
    slots, position = distinct(random, rows).to(device), numbers(random, 0, 12, rows).to(device)
    values = {"number": 1, "column": numbers(random, 0, 9, rows).to(device), "large": 2**24 + 1}
    start: Any = values[init]
    expected = memory._recalled(ring, slots, position, start)
    found = bookkeeping.recalled(ring, slots, position, start)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@on_devices
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
@pytest.mark.parametrize(
    ("shape", "narrow"), [((), ()), ((5,), (5,)), ((1500,), (1100,)), ((2, 3), (2, 3)), ((2, 3), (2, 1))]
)
def test_a_state_is_stored_alike(
    shape: tuple[int, ...], narrow: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    """Whole, and narrower than the ring, the rest of which stays."""
    random = torch.Generator().manual_seed(len(shape))
    ring = numbers(random, 0, 2, SLOTS, opening.DEPTH, *shape).to(dtype).to(device)
    slots, position = distinct(random, 20).to(device), numbers(random, -2, 12, 20).to(device)
    value = numbers(random, 0, 2, 20, *narrow).to(dtype).to(device)
    mine, theirs = ring.clone(), ring.clone()
    memory._stored(theirs, slots, position, value)
    bookkeeping.stored(mine, slots, position, value)
    assert torch.equal(mine, theirs)
    assert not torch.equal(mine, ring)
