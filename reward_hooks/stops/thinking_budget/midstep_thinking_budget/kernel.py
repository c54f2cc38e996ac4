"""The thinking budget in Triton: one launch for what `reference.follow` does in some hundred."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

import midstep

from . import reference
from .reference import Followed

LONGEST = tl.constexpr(reference.LONGEST)
WAITS, NEWLINE, REST = tl.constexpr(reference.WAIT), tl.constexpr(reference.NEWLINE), tl.constexpr(reference.REST)
GOES_ON = tl.constexpr(midstep.CONTINUE)
LINES = tl.constexpr(64)  # line ends that are compared at once
# None of these compiles a variant: texts and batches have any width.
WIDTHS = ("stride", "starts_width", "ends_width", "lines_width", "rows")
COLUMNS = (
    *("history", "lengths", "start", "start_lengths", "end", "end_lengths", "line_ends", "position", "thinking"),
    *("spent", "left", "began", "most", "minimum", "numbers", "fractions"),
)


@triton.jit
def find_text(history, length, text, count):
    """Return whether a text of `count` tokens ends a history, and how many of its tokens do if it does not."""
    o_back = tl.arange(0, LONGEST)
    complete, begun = count < 0, count * 0
    for some in range(1, count + 1):
        m_some = (o_back < some) & (length - some + o_back >= 0)
        b_token = tl.load(history + length - some + o_back, mask=m_some, other=-2)
        b_text = tl.load(text + o_back, mask=o_back < some, other=-2)
        there = tl.sum(((b_token != b_text) & (o_back < some)).to(tl.int32), axis=0) == 0
        complete = complete | (there & (some == count))
        begun = tl.where(there & (some < count), some, begun)
    return complete, begun


@triton.jit(do_not_specialize=WIDTHS, do_not_specialize_on_alignment=COLUMNS)
def _follow_rows(
    history,
    stride,
    lengths,
    start,
    starts_width,
    start_lengths,
    end,
    ends_width,
    end_lengths,
    line_ends,
    lines_width,
    position,
    thinking,
    spent,
    left,
    began,
    most,
    minimum,
    numbers,
    fractions,
    rows,
):
    """Leave thinking, spent, left, action and instead_of in `numbers`, [5, R]; value and threshold in `fractions`."""
    i_row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + i_row)
    tokens = history + i_row * stride
    wanted = tl.load(end_lengths + i_row)
    begins, _ = find_text(tokens, length, start + i_row * starts_width, tl.load(start_lengths + i_row))
    ends, begun = find_text(tokens, length, end + i_row * ends_width, wanted)
    was, drawn = tl.load(thinking + i_row) > 0, tl.load(position + i_row) > 0
    now = tl.where(drawn, tl.where(was, ends == 0, begins), was)
    used = tl.load(spent + i_row) + (drawn & was).to(tl.int64)
    waits = tl.maximum(tl.load(left + i_row) - (tl.load(began + i_row) == WAITS).to(tl.int64), 0)

    bound, least = tl.load(most + i_row), tl.load(minimum + i_row)
    due = now & (used >= bound)
    newest = tl.load(tokens + length - 1, mask=length > 0, other=-2)
    line_ended = 0
    for first in range(0, lines_width, LINES):
        o_line = first + tl.arange(0, LINES)
        b_line = tl.load(line_ends + i_row * lines_width + o_line, mask=o_line < lines_width, other=-1)
        line_ended += tl.sum(((b_line == newest) & (b_line >= 0)).to(tl.int32), axis=0)
    close = tl.where((begun == 0) & (line_ended == 0), NEWLINE, REST + begun)
    again = now & (begun == wanted - 1) & (due == 0) & ((used < least) | (waits > 0))
    last = tl.load(end + i_row * ends_width + wanted - 1, mask=wanted > 0, other=-1)
    tl.store(numbers + i_row, now.to(tl.int64))
    tl.store(numbers + rows + i_row, used)
    tl.store(numbers + 2 * rows + i_row, waits)
    tl.store(numbers + 3 * rows + i_row, tl.where(due, close, tl.where(again, WAITS, GOES_ON)).to(tl.int64))
    tl.store(numbers + 4 * rows + i_row, tl.where(again, last, -1))
    tl.store(fractions + i_row, used.to(tl.float32))
    tl.store(fractions + rows + i_row, tl.where(due, bound, least).to(tl.float32))


def follow(
    history: Tensor,
    lengths: Tensor,
    start: Tensor,
    start_lengths: Tensor,
    end: Tensor,
    end_lengths: Tensor,
    line_ends: Tensor,
    position: Tensor,
    thinking: Tensor,
    spent: Tensor,
    left: Tensor,
    began: Tensor,
    most: Tensor,
    minimum: Tensor,
) -> Followed:
    """Follow and decide; arguments and result as in `reference.follow`."""
    rows = len(lengths)
    numbers = torch.empty(5, rows, dtype=torch.int64, device=lengths.device)
    fractions = torch.empty(2, rows, dtype=torch.float32, device=lengths.device)
    if rows:
        history, start, end, line_ends = (ids.contiguous() for ids in (history, start, end, line_ends))
        columns = (position, thinking, spent, left, began, most, minimum)
        _follow_rows[(rows,)](
            history,
            history.stride(0),
            lengths.contiguous(),
            start,
            start.shape[1],
            start_lengths.contiguous(),
            end,
            end.shape[1],
            end_lengths.contiguous(),
            line_ends,
            line_ends.shape[1],
            *(column.contiguous() for column in columns),
            numbers,
            fractions,
            rows,
            num_warps=1,
        )
    thinking, spent, left, action, instead_of = numbers.unbind(0)
    return Followed(thinking, spent, left, action, fractions[0], fractions[1], instead_of)
