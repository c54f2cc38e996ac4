"""Mirostat, version 2: hold the surprise of the drawn tokens at a target.

    keep x_i where -log2 p_i <= mu;  draw token k;  mu <- mu - eta * (s - tau),  s = -log2 of k's probability

Basu, Ramachandran, Keskar, Varshney 2021, "Mirostat: a neural text decoding algorithm that directly controls
perplexity" (arXiv 2007.14966, ICLR 2021); code basusourya/mirostat and ggml-org/llama.cpp.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

sample = midstep.operation(reference.sample, "midstep_mirostat.kernel:sample")


class Mirostat(midstep.Sampler):
    """Chooses the token, and remembers how surprising the next one may be."""

    name = "mirostat"

    class Params(midstep.Params):
        """What a request may set."""

        tau: float = Field(5.0, gt=0, description="The surprise that the drawn tokens should have, in bits.")
        eta: float = Field(0.1, gt=0, description="How fast the bound on the surprise is corrected.")
        surprise: Literal["renormalised", "model"] = Field(
            "renormalised",
            description="Measured by the probability among the kept tokens, or by the model's own.",
        )

    state = {"mu": midstep.Column(torch.float32, init="mu0")}  # noqa: RUF012 - ClassVar of the base

    @classmethod
    def prepare(cls, params: Params, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Start with twice the target."""
        return midstep.Prepared(columns={"mu0": 2 * params.tau})

    def sample(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the drawn token ids, [R] int64."""
        own = rows.params
        ids, rows.state["mu"] = sample(
            logits, rows.state["mu"], own.tau, own.eta, own.surprise, rows.seed, rows.position, rows.sampled
        )
        return ids


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer mirostat."""
    return [Mirostat]
