"""Thinking budget: where each row's thinking stands, and what its budget demands now, in torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import midstep

LONGEST = 16  # tokens of a start, end or wait text: each is looked for at every token
WAIT, NEWLINE, REST = range(midstep.FORCE, midstep.FORCE + 3)  # the sequences' actions, in the order of their names


class Followed(NamedTuple):
    """What is remembered, and what is decided; [R] int64 but for `value` and `threshold`, float32.

    Args:
        thinking: 1 where the row is within a thought.
        spent: its tokens of thinking so far; `left`: the waits that are left.
    """

    thinking: Tensor
    spent: Tensor
    left: Tensor
    action: Tensor
    value: Tensor
    threshold: Tensor
    instead_of: Tensor


class Found(NamedTuple):
    """Of a text at the history's end: whether it is complete, and how many tokens of it are there if it is not."""

    complete: Tensor  # [R] bool
    begun: Tensor  # [R] int64, the most that fit


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
    """Follow each row's thinking by one token, and decide.

    Args:
        history: [R, L] int64, and its lengths [R]: prompt and generated ids.
        start: [R, S] int64, and its lengths [R]: what begins a thought; `end` likewise. At most LONGEST tokens.
        line_ends: [R, N] int64, the tokens that end a line; -1 is none.
        position: [R] int64.
        thinking, spent, left: [R] int64, as they were before this token.
        began: [R] int64, the action whose sequence has just begun.
        most, minimum: [R] int64, tokens of thinking.
    """
    tail = _tail(history, lengths)
    begun, ended = _find(tail, start, start_lengths), _find(tail, end, end_lengths)
    drawn, was = position > 0, thinking > 0
    now = torch.where(drawn, torch.where(was, ~ended.complete, begun.complete), was)
    spent = spent + (drawn & was)
    left = (left - (began == WAIT).long()).clamp_min(0)

    due = now & (spent >= most)
    line_ended = ((tail[:, -1:] == line_ends) & (line_ends >= 0)).any(-1)
    close = torch.where((ended.begun == 0) & ~line_ended, NEWLINE, REST + ended.begun)
    about_to_end = now & (ended.begun == end_lengths - 1)
    again = about_to_end & ~due & ((spent < minimum) | (left > 0))
    last = end.gather(1, (end_lengths - 1)[:, None])[:, 0]
    return Followed(
        now.long(),
        spent,
        left,
        action=torch.where(due, close, torch.where(again, WAIT, midstep.CONTINUE)),
        value=spent.float(),
        threshold=torch.where(due, most, minimum).float(),
        instead_of=torch.where(again, last, -1),
    )


def _tail(history: Tensor, lengths: Tensor) -> Tensor:
    """Return the last tokens of a history, [R, LONGEST] int64; -2, which no text holds, before its beginning."""
    at = lengths[:, None] + torch.arange(-LONGEST, 0, device=history.device)
    return history.gather(1, at.clamp_min(0)).masked_fill(at < 0, -2)


def _find(tail: Tensor, text: Tensor, lengths: Tensor) -> Found:
    """Compare the last tokens with the beginning of `text`, at each of its lengths."""
    complete, begun = torch.zeros_like(lengths, dtype=torch.bool), torch.zeros_like(lengths)
    for count in range(1, text.shape[1] + 1):
        there = (tail[:, LONGEST - count :] == text[:, :count]).all(-1)
        complete = complete | there & (lengths == count)
        begun = torch.where(there & (lengths > count), count, begun)
    return Found(complete, begun)
