"""XTC, exclude top choices: sometimes remove every token above a threshold but the least likely of them.

    S = {i: p_i >= threshold};  with `probability`, remove S without its least likely member

p-e-w 2024, "Exclude Top Choices (XTC)"; code oobabooga/text-generation-webui and ggml-org/llama.cpp.
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

import midstep
from midstep import noise

from . import reference

SEAM = 1
STREAM = noise.stream_of("xtc")

keep = midstep.operation(reference.keep, "midstep_xtc.kernel:keep")


class Xtc(midstep.Sampler):
    """Keep rule on the tempered logits, with a coin for each token."""

    name = "xtc"

    class Params(midstep.Params):
        """What a request may set."""

        threshold: float = Field(0.1, gt=0, le=1, description="Tokens at least this likely are the top choices.")
        probability: float = Field(0.5, ge=0, le=1, description="How often the top choices are removed; 0 never.")
        keep_special: bool = Field(
            False, description="Leave a row alone where a newline or an end token would be removed."
        )

    @classmethod
    def prepare(cls, params: Params, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Find the ids that `keep_special` keeps; none without it."""
        return midstep.Prepared(ids={"special": special(model) if params.keep_special else ()})

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        coin = noise.uniform(rows.seed, rows.position, STREAM)
        return keep(logits, rows.params.threshold, coin < rows.params.probability, rows.ids["special"].ids.long())


def special(model: midstep.Model) -> tuple[int, ...]:
    """Return the newline's id and the end tokens'.

    Raises:
        ValueError: there is no tokenizer to ask for the newline.
    """
    if model.tokenizer is None:
        raise ValueError(
            "keep_special = true needs the newline's token id, and this server has no tokenizer; "
            "start the server with its tokenizer, or leave keep_special at false"
        )
    newline = model.tokenizer.encode("\n", add_special_tokens=False)[-1:]
    return tuple(sorted(i for i in {*model.ends, *newline} if 0 <= i < model.vocabulary))


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer XTC."""
    return [Xtc]
