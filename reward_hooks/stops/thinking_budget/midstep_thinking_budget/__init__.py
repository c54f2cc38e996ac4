"""Thinking budget: close a thought at a maximum, hold it open to a minimum, or make the model think again.

    n: tokens of thinking so far
    n >= maximum                                    force the end text, and the answer text after it
    the end text is about to be complete, and
    n < minimum or waits are left                   force the wait text in place of its last token

Muennighoff et al. 2025, "s1: simple test-time scaling" (arXiv 2501.19393), section 3.1; code simplescaling/s1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

import midstep

from . import reference
from .reference import LONGEST

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
UNLIMITED = 2**40
follow = midstep.operation(reference.follow, "midstep_thinking_budget.kernel:follow")


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
        history, ids, state, params = rows.history(), rows.ids, rows.state, rows.params
        found = follow(
            *history,
            *ids["start"],
            *ids["end"],
            ids["line_ends"].ids,
            rows.position,
            state["thinking"],
            state["spent"],
            state["left"],
            rows.began(),
            params.most,
            params.minimum,
        )
        state["thinking"], state["spent"], state["left"] = found[:3]
        return midstep.Decision(found.action, found.value, found.threshold, found.instead_of)


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
