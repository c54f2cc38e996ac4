"""Nudging: an aligned model supplies the words of which the base is not sure.

    base's turn:    x where the base is sure, p >= threshold, and does not want to end; else the nudger's turn
    nudger's turn:  u, up to where its next word begins and the base agrees or is sure: then the base's turn

x: the request's row, p: its best token's probability, u: the same model's row under an adapter, a prompt, or both. Fei,
Razeghi, Singh 2025, "Nudging: inference-time alignment of LLMs via guided decoding" (ACL; arXiv 2410.09300); code
fywalter/nudging, which hands over texts; here it is tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

import midstep
from midstep.methods import OWN
from midstep.prompts import Prompt, Wears
from midstep.roles import ITSELF, cast, role

from . import reference
from .words import starts

SEAM = 1

nudge = midstep.operation(reference.nudge, "midstep_nudging.kernel:nudge")


class Nudging(midstep.LogitsProcessor):
    """Lets a nudger speak where the request's own row is not sure, one word or more at a time; only it may end."""

    name = "nudging"

    class Params(midstep.Params):
        """What a request may set."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": [1, 2]}]})

        nudger: Wears = Field(
            examples=["base"],
            description='What the nudger wears: "lora:NAME", "base" (no adapter) or "own" (what the request wears).',
        )
        threshold: float = Field(
            0.4, ge=0, le=1, description="From which probability of its best token on the base is sure."
        )
        prompt: Prompt | None = Field(
            None, description="The nudger's prompt: text, token ids or messages. None: the request's own."
        )

    state = {"mode": midstep.Column(torch.int64, init=reference.BASE)}  # noqa: RUF012 - ClassVar of the base

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Find out which tokens begin a word, and encode the nudger's prompt."""
        if model.tokenizer is None:
            raise ValueError(
                "it needs a tokenizer, to know where a word begins, and this server has none; start it with one "
                "(vLLM and SGLang: without --skip-tokenizer-init)"
            )
        nudger = role(params.nudger, params.prompt, prompt, model)
        companions = cast({ITSELF: role(OWN, None, prompt, model), "nudger": nudger}, prompt, model)
        ends = tuple(token for token in model.ends if token < model.vocabulary)
        return midstep.Prepared(ids={"ends": ends, "starts": starts(model)}, companions=companions)

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the base's row or the nudger's, [R, V] float32."""
        ends, words = rows.ids["ends"].ids, rows.ids["starts"].ids
        nudger = rows.companions["nudger"]
        left, rows.state["mode"] = nudge(logits, nudger, rows.state["mode"], rows.params.threshold, ends, words)
        return left


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer nudging."""
    return [Nudging]
