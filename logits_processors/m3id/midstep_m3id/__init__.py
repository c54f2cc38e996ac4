"""M3ID: move away from what the model would say without the context, the further the longer the answer is.

    y = x + w_t (x - u)        w_t = e^(decay t) - 1, at most `most`; t: tokens generated so far
    u: the logits under the prompt without its context

Favero, Zancato, Trager, Choudhary, Perera, Achille, Swaminathan, Soatto 2024, "Multi-modal hallucination control by
visual information grounding" (CVPR; arXiv 2403.14003), for any part of a prompt where the paper has an image.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

import midstep
from midstep import prompts
from midstep.prompts import Part, Prompt
from midstep.statistics import Statistics

from . import reference

SEAM = 1

weigh = midstep.operation(reference.weigh, "midstep_m3id.kernel:weigh")


class M3id(midstep.Guide):
    """Keeps an answer to its context, which a model forgets the more of, the longer it speaks."""

    name = "m3id"

    class Params(midstep.Params):
        """What a request may set."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"instead": [1, 2]}]})

        without: Part | list[Part] | None = Field(None, description=prompts.WITHOUT)
        instead: Prompt | None = Field(None, description=prompts.INSTEAD)
        decay: float = Field(
            0.02, ge=0, le=1, description="How fast the context is forgotten, per token; 0 is unguided."
        )
        mode: Literal["gate", "mask"] = Field(
            "gate",
            description="gate: only where the best token is less likely than `threshold`. mask: everywhere, without "
            "the tokens less likely than `plausible` of the best one.",
        )
        threshold: float = Field(0.3, ge=0, le=1, description="With gate: from which probability on a token is sure.")
        plausible: float = Field(
            0.1, ge=0, le=1, description="With mask: the least share of the best one's probability."
        )
        most: float = Field(10.0, ge=0, le=100, description="The weight grows no further.")

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Take the context out of the prompt."""
        other = prompts.other(prompt, model, without=params.without, instead=params.instead)
        return midstep.Prepared(companions={"other": midstep.Companion(other)})

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        """Say how far each row is moved."""
        statistics, params = own(), rows.params
        weight, floor = weigh(
            statistics.top,
            statistics.lse,
            rows.position,
            params.decay,
            params.mode,
            params.threshold,
            params.plausible,
            params.most,
        )
        return midstep.Contrast({"other": weight}, floor)


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer M3ID."""
    return [M3id]
