"""The end of a call: its record, what is remembered of it, and the rows that the engine draws from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .guards import COMPANION, EMPTY
from .opening import DEPTH, SCRATCH
from .operation import operation


class Left(NamedTuple):
    """What the stages left of the R rows of a call; [R] int64 where nothing else is said, as in `midstep.call.Call`.

    Args:
        position: as the engine has it, negative for a row that is thrown away.
        written: the slots that the call writes.
        end, changed: bool, the latter [R, methods].
        value, threshold: float32.
        trace: [R, 3] float32, `midstep.record.TRACED`; None where no row has a trace.
    """

    position: Tensor
    written: Tensor
    token: Tensor
    rule: Tensor
    fault: Tensor
    culprit: Tensor
    value: Tensor
    threshold: Tensor
    end: Tensor
    changed: Tensor
    trace: Tensor | None


class Refusals(NamedTuple):
    """What the fused rules did: `refused` and `empty` as in `midstep.fused.Fused`, both [R, rules].

    Args:
        names: [rules] int64, the index of each rule's method among the call's; -1 where no row uses it.
    """

    refused: Tensor
    empty: Tensor
    names: Tensor


class Terms(NamedTuple):
    """How rows end: `stops_on_error` [R] bool, and `ends` [R] int64, the token that is forced there, or -1."""

    stops_on_error: Tensor
    ends: Tensor


class Kept(NamedTuple):
    """What is remembered, by slot: [slots, DEPTH] int64 twice, [slots, L] int32, [slots] int64 (-1: no history)."""

    tag: Tensor
    drawn: Tensor
    history: Tensor
    prompt_length: Tensor


def _settled(token: Tensor, left: Left, refusals: Refusals | None, terms: Terms, kept: Kept) -> tuple[Tensor, Tensor]:
    """Blame, end, record and remember.

    A row at fault ends where its request wants that; one without its companion always does, since going on would be
    going on unguided.

    Args:
        token: `left.token`.

    Returns:
        The token of each row, [R] int64; and the record, [R, fields + methods] float32, `midstep.record.FIELDS`.
    """
    fault, culprit, changed = left.fault, left.culprit, left.changed
    if refusals is not None:
        changed = changed.clone()
        for rule, at in enumerate(refusals.names.tolist()):
            if at < 0:
                continue
            first = refusals.empty[:, rule] & (fault == 0)
            fault = torch.where(first, EMPTY, fault)
            culprit = torch.where(first, at + 1, culprit)
            changed[:, at] |= refusals.refused[:, rule]
    end = left.end | ((fault > 0) & terms.stops_on_error) | (fault == COMPANION)
    token = torch.where(end & (terms.ends >= 0), terms.ends, token)
    whole = torch.stack((left.position, token, left.rule, fault, culprit), 1).float()
    fractions = [torch.stack((left.value, left.threshold), 1)]
    if left.trace is not None:
        fractions.append(left.trace)
    values = torch.cat((whole, *fractions, end[:, None].float(), changed.float()), 1)

    at = left.position % DEPTH
    kept.tag[left.written, at] = left.position
    kept.drawn[left.written, at] = token
    width = kept.history.shape[1]
    if width:
        length = kept.prompt_length[left.written]
        index = (length.clamp_min(0) + left.position.clamp_min(0)).clamp_max(width - 1)
        kept.history[torch.where(length >= 0, left.written, SCRATCH), index] = token.int()
    return token, values


def _written(logits: Tensor, rows: Tensor, of: Tensor, token: Tensor) -> None:
    """Leave rows of `logits` with nothing but a token, in place.

    Args:
        logits: [N, V] float.
        rows: [T] int64, which of them; and `of` [T] int64, whose token each gets.
        token: [R] int64.
    """
    logits.index_fill_(0, rows, -torch.inf)
    logits.index_put_((rows, token[of]), logits.new_zeros(()))


settled = operation(_settled, "midstep.bookkeeping:settled")
written = operation(_written, "midstep.bookkeeping:written")
