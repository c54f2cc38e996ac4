"""DRY: lower the token that would go on repeating an earlier sequence, the more the longer the repetition is.

    x_c -= multiplier * base^(n - allowed_length)        n >= allowed_length: the longest match that c prolongs

p-e-w 2024, "DRY: a modern repetition penalty" (oobabooga/text-generation-webui, pull request 5677).
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from torch import Tensor

import midstep

from . import reference

SEAM = 1

penalise = midstep.operation(reference.penalise, "midstep_dry.kernel:penalise")

Breaker = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Dry(midstep.LogitsProcessor):
    """Penalises the tokens that would prolong a repetition of the context, prompt included."""

    name = "dry"
    history = True

    class Params(midstep.Params):
        """What a request may set."""

        multiplier: float = Field(0.8, ge=0, description="What a match of the allowed length costs; 0 is off.")
        base: float = Field(1.75, ge=1, description="By how much each further token of a match multiplies that.")
        allowed_length: int = Field(2, ge=1, description="The shortest match that costs anything, in tokens.")
        range: int = Field(0, ge=0, description="How many of the last tokens are searched; 0: all, with the prompt.")
        max_match: int = Field(50, ge=1, le=reference.MOST, description="Where the length of a match stops counting.")
        breakers: list[Breaker] = Field(
            ["\n", ":", '"', "*"],
            max_length=32,
            description="Texts that no match extends over; each of at most 64 characters, at most 32.",
        )

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Find the breakers' token ids: the last one of each, as it is encoded after a letter."""
        if params.breakers and model.tokenizer is None:
            raise ValueError(
                f"breakers = {params.breakers!r} are texts, and this server has no tokenizer; "
                "send breakers = [], which needs none"
            )
        ids = [model.tokenizer.encode(f"a{text}", add_special_tokens=False)[-1] for text in params.breakers]
        return midstep.Prepared(ids={"breakers": tuple(dict.fromkeys(ids))})

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the penalised logits, [R, V] float32."""
        ids, lengths = rows.history()
        params = rows.params
        return penalise(
            logits,
            ids,
            lengths,
            rows.ids["breakers"].ids,
            params.multiplier,
            params.base,
            params.allowed_length,
            params.range,
            params.max_match,
        )


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer DRY."""
    return [Dry]
