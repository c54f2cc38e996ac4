"""Guidance by a second prompt: the answer moves away from what the model would say without the prompt's point.

    y = x + sum_k w_k (x - u_k)        x: the logits under the request's prompt, u_k: under another one

Sanchez, Fan, Spangher, Levi, Ammanamanchi, Biderman 2023, "Stay on topic with classifier-free guidance" (arXiv
2306.17806); Shi, Han, Lewis, Tsvetkov, Zettlemoyer, Yih 2023, "Trusting your evidence: hallucinate less with
context-aware decoding" (arXiv 2305.14739); Pei, Yang, Klein 2023, "PREADD: prefix-adaptive decoding for controlled text
generation" (arXiv 2307.03214).
"""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ConfigDict, Field
from torch import Tensor

import midstep
from midstep import prompts
from midstep.contrast import plausible
from midstep.prompts import Part, Prompt, Text
from midstep.statistics import Statistics

SEAM = 1

PLAUSIBLE = (
    "Where the row is moved, a token less likely under the request's own prompt than this share of the best one is "
    "removed; 0 removes none."
)


class _Alike(midstep.Guide):
    """Moves away from all of its companions with one weight."""

    def weight(self, params: Any) -> Tensor:
        """Return the weight [R] of each companion."""
        raise NotImplementedError

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        """Say how far each row is moved."""
        # a column only where a request asks for it: nobody else's rows are read for their best token
        share = getattr(rows.params, "share", None)
        floor = None if share is None else plausible(share, own())
        return midstep.Contrast(dict.fromkeys(rows.companions, self.weight(rows.params)), floor)


class Cfg(_Alike):
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
        negatives: list[Prompt] = Field([], max_length=8, description="More negative prompts, at most 8.")
        plausible: float = Field(0.0, ge=0, le=1, description=PLAUSIBLE)

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Encode the negative prompts."""
        given = [*([] if params.negative is None else [params.negative]), *params.negatives]
        ids = [prompts.encoded(one, model) for one in given] or [tuple(prompt[-1:])]
        companions = {f"negative{i}": midstep.Companion(one) for i, one in enumerate(ids)}
        return midstep.Prepared(columns={"count": len(ids), **_share(params)}, companions=companions)

    def weight(self, params: Any) -> Tensor:
        """Return the weight [R] of each negative prompt."""
        return (params.scale - 1.0) / params.count  # type: ignore[no-any-return]


class Cad(_Alike):
    """Context-aware decoding: away from the answer to the same prompt without its context."""

    name = "cad"

    class Params(midstep.Params):
        """What a request may set."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"instead": [1, 2]}]})

        alpha: float = Field(0.5, ge=0, le=100, description="How far: 0 is unguided.")
        without: Part | list[Part] | None = Field(None, description=prompts.WITHOUT)
        instead: Prompt | None = Field(None, description=prompts.INSTEAD)
        plausible: float = Field(0.0, ge=0, le=1, description=PLAUSIBLE)

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Take the context out of the prompt."""
        other = prompts.other(prompt, model, without=params.without, instead=params.instead)
        return midstep.Prepared(columns=_share(params), companions={"other": midstep.Companion(other)})

    def weight(self, params: Any) -> Tensor:
        """Return the weight [R] of the prompt without its context."""
        return params.alpha  # type: ignore[no-any-return]


class Preadd(_Alike):
    """PREADD: away from the answer to the prompt behind a prefix, or towards it."""

    name = "preadd"

    class Params(midstep.Params):
        """What a request may set."""

        prefix: Text | list[int] = Field(
            examples=[[1, 2]], description="What the prompt is put behind: text, which a blank follows, or token ids."
        )
        scale: float = Field(
            -1.0, ge=-100, le=100, description="How far: below 0 away from the prefix, above 0 towards it, 0 unguided."
        )
        before: Text | None = Field(
            None,
            description="The part of the prompt that the prefix is put before, at its last place there. None: the "
            "prompt's beginning, behind the token that a tokenizer begins each text with.",
        )
        plausible: float = Field(0.0, ge=0, le=1, description=PLAUSIBLE)

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Put the prompt behind the prefix."""
        other = prompts.behind(prompt, params.prefix, model, before=params.before)
        return midstep.Prepared(columns=_share(params), companions={"prefixed": midstep.Companion(other)})

    def weight(self, params: Any) -> Tensor:
        """Return the weight [R] of the prefixed prompt."""
        return -params.scale  # type: ignore[no-any-return]


def _share(params: Any) -> dict[str, float]:
    return {"share": params.plausible} if params.plausible > 0 else {}


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer guidance."""
    return [Cfg, Cad, Preadd]
