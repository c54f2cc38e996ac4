"""A call's bookkeeping in Triton: `midstep.opening` and `midstep.closing` are the definitions.

Three launches, where torch takes some fifty small ones: between a model's steps each of those costs the device about as
long as reading a row does, and the host longer.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import closing, opening
from .closing import Kept, Left, Refusals, Terms
from .device import TILE, tiles
from .opening import Opened
from .record import FIELDS, TRACED

DEPTH, SCRATCH = tl.constexpr(opening.DEPTH), tl.constexpr(opening.SCRATCH)
STATE, HISTORY = tl.constexpr(opening.STATE), tl.constexpr(opening.HISTORY)
EMPTY, COMPANION = tl.constexpr(closing.EMPTY), tl.constexpr(closing.COMPANION)
BLOCK = tl.constexpr(64)  # rows of one program of `_open_rows`
# Columns may begin anywhere in an engine's tensor, and a batch may have one row: neither compiles a variant.
OPENED = ("slots", "position", "fed", "tag", "drawn", "first", "keeper", "found")
SETTLED = (
    *("position", "written", "token", "rule", "fault", "culprit", "value", "threshold", "end", "changed", "trace"),
    *("refused", "empty", "names", "stops_on_error", "ends", "tag", "drawn", "history", "prompt_length"),
    *("tokens", "values"),
)


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=OPENED)
def _open_rows(slots, position, fed, tag, drawn, first, keeper, found, rows):
    """Leave what `Opened` holds in `found`, [4, R]."""
    o_row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_row = o_row < rows
    b_slot, b_position = tl.load(slots + o_row, mask=m_row, other=0), tl.load(position + o_row, mask=m_row, other=0)
    b_fed, b_keeper = tl.load(fed + o_row, mask=m_row, other=-1), tl.load(keeper + o_row, mask=m_row, other=0)
    before = b_position - 1
    at = b_slot * DEPTH + (before & (DEPTH - 1))
    b_known = (b_position <= 0) | (tl.load(tag + at, mask=m_row, other=-1) == before)
    b_other = (b_fed >= 0) & (b_position > 0) & b_known & (b_fed != tl.load(drawn + at, mask=m_row, other=-1))
    b_lost = (b_known == 0) & (b_keeper > 0)
    b_first = tl.load(first + o_row, mask=m_row, other=0)
    tl.store(found + o_row, tl.maximum(b_position, 0), mask=m_row)
    tl.store(found + rows + o_row, tl.where(b_position >= 0, b_slot, SCRATCH), mask=m_row)
    tl.store(found + 2 * rows + o_row, tl.where(b_lost, STATE, tl.where(b_other, HISTORY, 0)), mask=m_row)
    tl.store(found + 3 * rows + o_row, tl.where(b_lost, b_keeper, tl.where(b_other, b_first, 0)), mask=m_row)


def opened(
    slots: Tensor, position: Tensor, fed: Tensor, tag: Tensor, drawn: Tensor, first: Tensor, keeper: Tensor
) -> Opened:
    """Compare and look; arguments and result as in `midstep.opening.opened`."""
    rows = len(slots)
    found = torch.empty(4, rows, dtype=torch.int64, device=slots.device)
    columns = (column.contiguous() for column in (slots, position, fed, tag, drawn, first, keeper))
    _open_rows[(triton.cdiv(rows, int(BLOCK.value)),)](*columns, found, rows, num_warps=1)
    return Opened(*found.unbind(0))


@triton.jit(
    do_not_specialize=["methods", "traced", "width", "room"],
    do_not_specialize_on_alignment=SETTLED,
)
def _settle_rows(
    position,
    written,
    token,
    rule,
    fault,
    culprit,
    value,
    threshold,
    end,
    changed,
    trace,
    refused,
    empty,
    names,
    stops_on_error,
    ends,
    tag,
    drawn,
    history,
    prompt_length,
    tokens,
    values,
    methods,
    traced,
    width,
    room,
    rules: tl.constexpr,
):
    """Blame, end, record and remember one row."""
    i_row = tl.program_id(0).to(tl.int64)
    at_fault, by = tl.load(fault + i_row), tl.load(culprit + i_row)
    record = values + i_row * width
    marks = record + width - methods
    for i in range(methods):
        tl.store(marks + i, tl.load(changed + i_row * methods + i).to(tl.float32))
    for i in tl.static_range(rules):
        name = tl.load(names + i)
        first = tl.load(empty + i_row * rules + i) & (name >= 0) & (at_fault == 0)
        at_fault = tl.where(first, EMPTY, at_fault)
        by = tl.where(first, name + 1, by)
        tl.store(marks + name, 1.0, mask=tl.load(refused + i_row * rules + i) & (name >= 0))
    ended = tl.load(end + i_row) | ((at_fault > 0) & tl.load(stops_on_error + i_row)) | (at_fault == COMPANION)
    last, chosen = tl.load(ends + i_row), tl.load(token + i_row)
    chosen = tl.where(ended & (last >= 0), last, chosen)
    at = tl.load(position + i_row)
    tl.store(tokens + i_row, chosen)
    tl.store(record, at.to(tl.float32))
    tl.store(record + 1, chosen.to(tl.float32))
    tl.store(record + 2, tl.load(rule + i_row).to(tl.float32))
    tl.store(record + 3, at_fault.to(tl.float32))
    tl.store(record + 4, by.to(tl.float32))
    tl.store(record + 5, tl.load(value + i_row))
    tl.store(record + 6, tl.load(threshold + i_row))
    for i in range(traced):
        tl.store(record + 7 + i, tl.load(trace + i_row * traced + i))
    tl.store(marks - 1, ended.to(tl.float32))

    slot = tl.load(written + i_row)
    ring = slot * DEPTH + (at & (DEPTH - 1))
    tl.store(tag + ring, at)
    tl.store(drawn + ring, chosen)
    if room > 0:
        length = tl.load(prompt_length + slot)
        index = tl.minimum(tl.maximum(length, 0) + tl.maximum(at, 0), room - 1)
        tl.store(history + tl.where(length >= 0, slot, SCRATCH) * room + index, chosen.to(tl.int32))


def settled(token: Tensor, left: Left, refusals: Refusals | None, terms: Terms, kept: Kept) -> tuple[Tensor, Tensor]:
    """Settle a call; arguments and result as in `midstep.closing.settled`."""
    rows, methods = left.changed.shape
    traced = 0 if left.trace is None else len(TRACED)
    width = len(FIELDS) + traced + methods
    tokens = torch.empty(rows, dtype=torch.int64, device=token.device)
    values = torch.empty(rows, width, dtype=torch.float32, device=token.device)
    # a pointer that nobody follows stands for what is not there
    trace = values if left.trace is None else left.trace
    refused, empty, names = refusals or (left.changed, left.changed, token)
    columns = (*left[:-1], trace, refused, empty, names, *terms)
    _settle_rows[(rows,)](
        *(column.contiguous() for column in columns),
        *kept,
        tokens,
        values,
        methods,
        traced,
        width,
        kept.history.shape[1],
        rules=0 if refusals is None else refused.shape[1],
        num_warps=1,
    )
    return tokens, values


@triton.jit(do_not_specialize_on_alignment=["rows", "of", "token"])
def _write_rows(logits, stride, vocabulary, rows, of, token):
    """Leave one tile of one row with nothing but its token."""
    i_target = tl.program_id(1)
    i_row, chosen = tl.load(rows + i_target), tl.load(token + tl.load(of + i_target))
    o_token = tl.program_id(0) * TILE + tl.arange(0, TILE)
    b_left = tl.where(o_token == chosen, 0.0, float("-inf"))
    tl.store(logits + i_row * stride + o_token, b_left.to(logits.dtype.element_ty), mask=o_token < vocabulary)


def written(logits: Tensor, rows: Tensor, of: Tensor, token: Tensor) -> None:
    """Write the rows; arguments as in `midstep.closing.written`, the columns of `logits` adjacent."""
    if logits.stride(1) != 1:
        return closing._written(logits, rows, of, token)
    vocabulary = logits.shape[1]
    _write_rows[tiles(vocabulary), len(rows)](logits, logits.stride(0), vocabulary, rows, of, token, num_warps=4)
    return None
