"""Guidance by a second prompt: the answer moves away from what the model would say without the prompt's point.

    y = x + sum_k w_k (x - u_k)        x: the logits under the request's prompt, u_k: under another one

Sanchez, Fan, Spangher, Levi, Ammanamanchi, Biderman 2023, "Stay on topic with classifier-free guidance" (arXiv
2306.17806).
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

import midstep
from midstep import prompts

from . import reference

SEAM = 1

contrast = reference.contrast

Text = Annotated[str, Field(min_length=1)]
Prompt = Text | list[int] | list[dict[str, Any]]


class Cfg(midstep.LogitsProcessor):
    """Classifier-free guidance: away from the answer to a negative prompt, or to several, their mean."""

    name = "cfg"

    class Params(midstep.Params):
        """What a request may set."""

        scale: float = Field(1.5, ge=0, le=100, description="How far: 1 is unguided, 0 answers the negative prompt.")
        negative: Prompt | None = Field(
            None,
            examples=[[1, 2]],
            description="Negative prompt: text, token ids or messages. None: the last token of the prompt.",
        )
        negatives: list[Prompt] = Field([], max_length=8, description="More negative prompts.")

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Encode the negative prompts."""
        given = [*([] if params.negative is None else [params.negative]), *params.negatives]
        ids = [prompts.encoded(one, model) for one in given] or [tuple(prompt[-1:])]
        companions = {f"negative{i}": midstep.Companion(one) for i, one in enumerate(ids)}
        return midstep.Prepared(columns={"count": len(ids)}, companions=companions)

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the guided logits, [R, V] float32."""
        weight = (rows.params.scale - 1.0) / rows.params.count
        others = [rows.companions[name] for name in sorted(rows.companions)]
        return contrast(logits, others, torch.stack([weight] * len(others), 1))


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer guidance."""
    return [Cfg]
