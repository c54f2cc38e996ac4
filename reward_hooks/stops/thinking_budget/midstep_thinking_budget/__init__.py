"""Thinking budget: close a thought at a maximum, hold it open to a minimum, or make the model think again.

    n: tokens of thinking so far
    n >= maximum                                    force the end text, and the answer text after it
    the end text is about to be complete, and
    n < minimum or waits are left                   force the wait text in place of its last token

Muennighoff et al. 2025, "s1: simple test-time scaling" (arXiv 2501.19393), section 3.1; code simplescaling/s1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

import midstep

SEAM = 1

# What reasoning models put around their thoughts; the first pair that a tokenizer or a chat template holds is taken.
PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
# A line's end is often one token with what stands before it, or with the next line's.
LINE_ENDS = tuple(before + lines for before in ("a", ".", ",", ":", "?", "!", ")") for lines in ("\n", "\n\n"))
LONGEST = 16  # tokens of a start, end or wait text: each is looked for at every token
UNLIMITED = 2**40
WAIT, NEWLINE, REST = range(midstep.FORCE, midstep.FORCE + 3)  # the sequences' actions, in the order of their names


class ThinkingBudget(midstep.StopController):
    """Keeps a request's thinking between a minimum and a maximum of tokens."""

    name = "thinking_budget"
    history = True

    class Params(midstep.Params):
        """What a request may set."""

        maximum: int | None = Field(
            None, ge=0, description="Tokens of thinking after which the end text is forced; None: never."
        )
        minimum: int = Field(
            0, ge=0, description="Tokens of thinking before which the end text is replaced by the wait text."
        )
        waits: int = Field(0, ge=0, description="The end text is replaced by the wait text so many times.")
        wait: str = Field("Wait", min_length=1, max_length=256, description="The wait text.")
        start: str | None = Field(
            None, min_length=1, max_length=64, description="What begins the thinking; None: found by the tokenizer."
        )
        end: str | None = Field(
            None, min_length=1, max_length=64, description="What ends the thinking; None: found by the tokenizer."
        )
        answer: str = Field("", max_length=1024, description="Forced after an end text that the maximum forced.")
        thinking: Literal["auto", "now"] = Field(
            "auto", description="Whether to begin at the start text, in the prompt too, or at once."
        )

    state = {  # noqa: RUF012 - ClassVar of the base
        "thinking": midstep.Column(torch.int64, init="open"),
        "spent": midstep.Column(torch.int64),
        "left": midstep.Column(torch.int64, init="waits"),
    }

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Find the texts and their token ids, and see whether the prompt ends within a thought."""
        if params.maximum is not None and params.maximum < params.minimum:
            raise ValueError(
                f"maximum = {params.maximum} is less than minimum = {params.minimum}; raise the one or lower the other"
            )
        if model.tokenizer is None:
            raise ValueError("its texts need a tokenizer, and this server has none; start the server with one")
        texts = dict(zip(("start", "end"), _pair(params, model.tokenizer), strict=True))
        start, end, wait = (
            _encode(model.tokenizer, name, text) for name, text in [*texts.items(), ("wait", params.wait)]
        )
        answer, newline = (
            tuple(model.tokenizer.encode(text, add_special_tokens=False)) for text in (params.answer, "\n")
        )
        line_ends = {i for text in LINE_ENDS for i in model.tokenizer.encode(text, add_special_tokens=False)[-1:]}
        opened = params.thinking == "now" or _last(prompt, start) > _last(prompt, end)
        return midstep.Prepared(
            columns={"open": int(opened), "most": UNLIMITED if params.maximum is None else params.maximum},
            ids={"start": start, "end": end, "line_ends": tuple(sorted(line_ends))},
            # The pipeline numbers them by name: WAIT, NEWLINE, then REST + how much of the end text is there already.
            sequences={
                "0 wait": wait,
                "1 newline": (*newline, *end, *answer),
                **{f"2 rest {i:02}": (*end[i:], *answer) for i in range(len(end))},
            },
        )

    def decide(self, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        """Follow each row's thinking by one token; force what its budget demands."""
        tail, end = _tail(rows.history()), rows.ids["end"]
        begun, ended = _find(tail, rows.ids["start"]), _find(tail, end)
        drawn, was = rows.position > 0, rows.state["thinking"] > 0
        thinking = torch.where(drawn, torch.where(was, ~ended.complete, begun.complete), was)
        spent = rows.state["spent"] + (drawn & was)
        left = (rows.state["left"] - (rows.began() == WAIT).long()).clamp_min(0)
        rows.state["thinking"], rows.state["spent"], rows.state["left"] = thinking.long(), spent, left

        due = thinking & (spent >= rows.params.most)
        line_ended = (tail[:, -1:] == rows.ids["line_ends"].ids).any(-1)
        close = torch.where((ended.begun == 0) & ~line_ended, NEWLINE, REST + ended.begun)
        about_to_end = thinking & (ended.begun == end.lengths - 1)
        again = about_to_end & ~due & ((spent < rows.params.minimum) | (left > 0))
        last = end.ids.gather(1, (end.lengths - 1)[:, None])[:, 0]
        return midstep.Decision(
            action=torch.where(due, close, torch.where(again, WAIT, midstep.CONTINUE)),
            value=spent.float(),
            threshold=torch.where(due, rows.params.most, rows.params.minimum).float(),
            instead_of=torch.where(again, last, -1),
        )


class Found(NamedTuple):
    """Of a text at the history's end: whether it is complete, and how many tokens of it are there if it is not."""

    complete: Tensor  # [R] bool
    begun: Tensor  # [R] int64, the most that fit


def _tail(history: midstep.Ragged) -> Tensor:
    """Return the last tokens of a history, [R, LONGEST] int64; -2, which no text holds, before its beginning."""
    at = history.lengths[:, None] + torch.arange(-LONGEST, 0, device=history.ids.device)
    return history.ids.gather(1, at.clamp_min(0)).masked_fill(at < 0, -2)


def _find(tail: Tensor, text: midstep.Ragged) -> Found:
    """Compare the last tokens with the beginning of `text`, at each of its lengths."""
    complete, begun = torch.zeros_like(text.lengths, dtype=torch.bool), torch.zeros_like(text.lengths)
    for count in range(1, text.ids.shape[1] + 1):
        there = (tail[:, LONGEST - count :] == text.ids[:, :count]).all(-1)
        complete = complete | there & (text.lengths == count)
        begun = torch.where(there & (text.lengths > count), count, begun)
    return Found(complete, begun)


def _pair(params: Any, tokenizer: Any) -> tuple[str, str]:
    """Return the start and the end text."""
    if params.start is not None and params.end is not None:
        return params.start, params.end
    if params.start is not None or params.end is not None:
        raise ValueError(f"start = {params.start!r} and end = {params.end!r}; send both, or neither")
    added: Mapping[str, int] = getattr(tokenizer, "get_added_vocab", dict)()
    for known in (added, str(getattr(tokenizer, "chat_template", None))):
        for pair in PAIRS:
            if all(text in known for text in pair):
                return pair
    raise ValueError(
        "neither the tokenizer's added tokens nor its chat template hold a known pair of texts around a thought, "
        f"such as {PAIRS[0][0]} and {PAIRS[0][1]}; send start and end"
    )


def _encode(tokenizer: Any, name: str, text: str) -> tuple[int, ...]:
    """Return the ids of a text that is looked for."""
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    if not 1 <= len(ids) <= LONGEST:
        raise ValueError(f"{name} = {text!r} has {len(ids)} tokens; allowed: 1 to {LONGEST}")
    return ids


def _last(ids: Sequence[int], text: Sequence[int]) -> int:
    """Return where `text` begins for the last time in `ids`, -1 where it does not."""
    places = range(len(ids) - len(text), -1, -1)
    return next((i for i in places if ids[i] == text[0] and tuple(ids[i : i + len(text)]) == tuple(text)), -1)


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.StopController]]:
    """Offer the thinking budget."""
    return [ThinkingBudget]
