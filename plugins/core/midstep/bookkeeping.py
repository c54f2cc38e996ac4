"""A call's bookkeeping in Triton: `midstep.opening`, `midstep.deciding` and `midstep.closing` are the definitions.

A few launches, where torch takes some fifty small ones: between a model's steps each of those costs the device about as
long as reading a row does, and the host longer.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import closing, guards, memory, opening
from .closing import Kept, Left, Refusals, Terms
from .deciding import Acts
from .device import TILE, tiles
from .methods import END, FORCE
from .opening import Opened
from .record import FIELDS, TRACED

DEPTH, SCRATCH = tl.constexpr(opening.DEPTH), tl.constexpr(opening.SCRATCH)
STATE, HISTORY = tl.constexpr(guards.STATE), tl.constexpr(guards.HISTORY)
EMPTY, COMPANION = tl.constexpr(guards.EMPTY), tl.constexpr(guards.COMPANION)
ENDS, FORCES = tl.constexpr(END), tl.constexpr(FORCE)
BLOCK = tl.constexpr(64)  # rows of one program of `_open_rows`
ENTRIES = tl.constexpr(1024)  # of a state that one program copies
EXACT = 1 << 24  # whole numbers below it are exact in float32
# Columns may begin anywhere in an engine's tensor, and a batch may have one row: neither compiles a variant.
OPENED = ("slots", "position", "fed", "tag", "drawn", "first", "keeper", "found")
DECIDED = (
    *("action", "value", "threshold", "instead", "base", "within", "position", "min_tokens"),
    *("rule", "end", "values", "thresholds", "forced", "new_rule", "new_end", "new_values"),
)
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


@triton.jit(do_not_specialize=["index", "rows"], do_not_specialize_on_alignment=DECIDED)
def _decide_rows(
    action,
    value,
    threshold,
    instead,
    base,
    within,
    position,
    min_tokens,
    rule,
    end,
    values,
    thresholds,
    forced,
    new_rule,
    new_end,
    new_values,
    index,
    rows,
):
    """Leave rule and forced in `new_rule`, [2, R], and value and threshold in `new_values`, [2, R]."""
    o_row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_row = o_row < rows
    b_within = tl.load(within + o_row, mask=m_row, other=-1)
    m_mine = m_row & (b_within >= 0)
    b_action = tl.load(action + b_within, mask=m_mine, other=0)
    b_waits = tl.load(instead + b_within, mask=m_mine, other=-1) >= 0
    b_rule = tl.load(rule + o_row, mask=m_row, other=0)
    b_late = tl.load(position + o_row, mask=m_row, other=0) + 1 >= tl.load(min_tokens + o_row, mask=m_row, other=0)
    b_ends = (b_action == ENDS) & b_late
    b_forces = (b_action >= FORCES) & (b_waits == 0)
    b_acts = m_mine & (b_rule == 0) & (b_ends | b_forces)
    b_sequence = tl.load(base + b_within, mask=m_mine, other=0) + b_action - FORCES + 1
    b_value = tl.load(value + b_within, mask=m_mine, other=0.0)
    b_threshold = tl.load(threshold + b_within, mask=m_mine, other=0.0)
    tl.store(new_rule + o_row, tl.where(b_acts, index + 1, b_rule), mask=m_row)
    b_forced = tl.load(forced + o_row, mask=m_row, other=0)
    tl.store(new_rule + rows + o_row, tl.where(b_acts & b_forces, b_sequence, b_forced), mask=m_row)
    b_end = tl.load(end + o_row, mask=m_row, other=0) != 0
    tl.store(new_end + o_row, b_end | (b_acts & b_ends), mask=m_row)
    b_values = tl.load(values + o_row, mask=m_row, other=0.0)
    tl.store(new_values + o_row, tl.where(b_acts, b_value, b_values), mask=m_row)
    b_thresholds = tl.load(thresholds + o_row, mask=m_row, other=0.0)
    tl.store(new_values + rows + o_row, tl.where(b_acts, b_threshold, b_thresholds), mask=m_row)


def decided(
    action: Tensor,
    value: Tensor,
    threshold: Tensor,
    instead: Tensor,
    base: Tensor,
    within: Tensor,
    position: Tensor,
    min_tokens: Tensor,
    index: int,
    now: Acts,
) -> Acts:
    """Add what one stop decided; arguments and result as in `midstep.deciding.decided`."""
    rows = len(within)
    whole = torch.empty(2, rows, dtype=torch.int64, device=within.device)
    ends = torch.empty(rows, dtype=torch.bool, device=within.device)
    numbers = torch.empty(2, rows, dtype=torch.float32, device=within.device)
    columns = (action, value, threshold, instead, base, within, position, min_tokens, *now)
    contiguous = (column.contiguous() for column in columns)
    grid = (triton.cdiv(rows, int(BLOCK.value)),)
    _decide_rows[grid](*contiguous, whole, ends, numbers, index, rows, num_warps=1)
    return Acts(whole[0], ends, numbers[0], numbers[1], whole[1])


@triton.jit(do_not_specialize=["width", "init"], do_not_specialize_on_alignment=["ring", "slots", "position", "state"])
def _recall_rows(ring, slots, position, starts, init, state, width, columned: tl.constexpr):
    """Leave one block of a row's state before its position: `init` at the first one, or the row's own of `starts`."""
    i_row = tl.program_id(0).to(tl.int64)
    o_entry = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    m_entry = o_entry < width
    at, slot = tl.load(position + i_row), tl.load(slots + i_row)
    if at <= 0:
        if columned:
            b_state = tl.zeros((ENTRIES,), state.dtype.element_ty) + tl.load(starts + i_row).to(state.dtype.element_ty)
        else:
            b_state = (tl.zeros((ENTRIES,), tl.float32) + init).to(state.dtype.element_ty)
    else:
        before = (slot * DEPTH + ((at - 1) & (DEPTH - 1))) * width
        b_state = tl.load(ring + before + o_entry, mask=m_entry, other=0)
    tl.store(state + i_row * width + o_entry, b_state, mask=m_entry)


def recalled(ring: Tensor, slots: Tensor, position: Tensor, init: Tensor | float) -> Tensor:
    """Read a state; arguments and result as in `midstep.memory.recalled`."""
    rows, width = len(slots), ring[0, 0].numel()
    columned = isinstance(init, Tensor)
    starts, number = (init.contiguous(), 0.0) if isinstance(init, Tensor) else (slots, float(init))
    if ring.dtype == torch.bool or (not ring.is_floating_point() and abs(number) >= EXACT):
        return memory._recalled(ring, slots, position, init)
    state = torch.empty((rows, *ring.shape[2:]), dtype=ring.dtype, device=ring.device)
    grid = rows, triton.cdiv(width, int(ENTRIES.value))
    if rows:
        _recall_rows[grid](
            ring,
            slots.contiguous(),
            position.contiguous(),
            starts,
            number,
            state,
            width,
            columned=columned,
            num_warps=1,
        )
    return state


@triton.jit(do_not_specialize=["width", "wide"], do_not_specialize_on_alignment=["ring", "slots", "position", "state"])
def _keep_rows(ring, slots, position, state, width, wide):
    """Store one block of a row's state, `width` entries of a ring of `wide` ones."""
    i_row = tl.program_id(0).to(tl.int64)
    o_entry = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    m_entry = o_entry < width
    at, slot = tl.load(position + i_row), tl.load(slots + i_row)
    b_state = tl.load(state + i_row * width + o_entry, mask=m_entry, other=0)
    tl.store(ring + (slot * DEPTH + (at & (DEPTH - 1))) * wide + o_entry, b_state, mask=m_entry)


def stored(ring: Tensor, slots: Tensor, position: Tensor, value: Tensor) -> None:
    """Store a state; arguments as in `midstep.memory.stored`."""
    rows, width, wide = len(slots), value[:1].numel(), ring[0, 0].numel()
    narrow = value.shape[1:] != ring.shape[2:]
    if ring.dtype == torch.bool or (narrow and ring.ndim > 3) or value.dtype != ring.dtype:
        memory._stored(ring, slots, position, value)
    elif rows and width:
        grid = rows, triton.cdiv(width, int(ENTRIES.value))
        columns = slots.contiguous(), position.contiguous(), value.contiguous()
        _keep_rows[grid](ring, *columns, width, wide, num_warps=1)


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
