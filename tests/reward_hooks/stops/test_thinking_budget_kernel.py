"""The thinking budget's kernel against its definition, in the interpreter and on a GPU: equal in every number."""

import kernel_cases
import pytest
import torch
from kernel_cases import on_devices
from torch import Tensor

from midstep_thinking_budget import reference
from midstep_thinking_budget.reference import LONGEST, NEWLINE, REST, WAIT

pytest.importorskip("triton", reason="Triton is not installed")
kernel = pytest.importorskip("midstep_thinking_budget.kernel")

poison = kernel_cases.poison
WORDS = 2  # so few that texts are found, begun and missed


def _texts(random: torch.Generator, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Return texts of one to `width` tokens, filled up with -1."""
    lengths = torch.randint(1, width + 1, (rows,), generator=random)
    ids = torch.randint(WORDS, (rows, width), generator=random)
    return ids.masked_fill(torch.arange(width) >= lengths[:, None], -1), lengths


def _case(rows: int, room: int, widths: tuple[int, int], lines: int, device: str) -> list[Tensor]:
    random = torch.Generator().manual_seed(rows * 100 + room)

    def some(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (rows,), generator=random)

    lengths = some(0, room + 1)
    history = torch.randint(WORDS, (rows, room), generator=random)
    history = history.masked_fill(torch.arange(room) >= lengths[:, None], -1)
    line_ends = torch.randint(-1, WORDS, (rows, lines), generator=random)
    texts = [*_texts(random, rows, widths[0]), *_texts(random, rows, widths[1])]
    state = [some(0, 2), some(0, 12), some(0, 3), some(0, REST + 2)]
    most = torch.where(some(0, 2) > 0, some(0, 14), 2**40)
    return [x.to(device) for x in (history, lengths, *texts, line_ends, some(0, 4), *state, most, some(0, 9))]


@on_devices
@pytest.mark.parametrize("lines", [0, 3, 70])
@pytest.mark.parametrize("widths", [(1, 1), (3, 2), (LONGEST, LONGEST)])
@pytest.mark.parametrize(("rows", "room"), [(1, 1), (80, 7), (90, 40)])
def test_rows_are_followed_alike(rows: int, room: int, widths: tuple[int, int], lines: int, device: str) -> None:
    """Histories shorter than the texts, texts of every length, budgets that are due, and waits that are left."""
    case = _case(rows, room, widths, lines, device)
    expected, found = reference.follow(*case), kernel.follow(*case)
    for name in expected._fields:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    if rows > 1 and widths == (3, 2):
        actions = set(expected.action.tolist())
        assert WAIT in actions
        assert max(actions) >= REST
        assert lines or NEWLINE in actions  # among so few words most tokens end a line, where one does


@on_devices
def test_an_empty_batch_is_followed(device: str) -> None:
    case = [x[:0] for x in _case(3, 9, (3, 2), 3, device)]
    assert [len(x) for x in kernel.follow(*case)] == [0] * 7
