"""Epsilon and eta: keep the tokens above a fixed probability, or above one that falls with the row's entropy.

    epsilon    keep x_i where p_i >= cutoff
    eta        keep x_i where p_i >= min(cutoff, sqrt(cutoff) exp(-H))        H: the row's entropy, nats

Hewitt, Manning, Liang 2022, "Truncation sampling as language model desmoothing" (arXiv 2210.15191).
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

epsilon = midstep.operation(reference.epsilon, "midstep_epsilon_eta.kernel:epsilon")
eta = midstep.operation(reference.eta, "midstep_epsilon_eta.kernel:eta")


class Epsilon(midstep.Sampler):
    """Keep rule on the tempered logits: a fixed probability."""

    name = "epsilon"
    rule = "midstep_epsilon_eta.kernel:epsilon_rule"

    class Params(midstep.Params):
        """What a request may set."""

        cutoff: float = Field(3e-4, gt=0, lt=1, description="Keep tokens of at least this probability.")

    def columns(self, params: Any) -> tuple[Tensor, ...]:
        """Return log cutoff."""
        return (params.cutoff.log(),)

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        return epsilon(logits, rows.params.cutoff)


class Eta(midstep.Sampler):
    """Keep rule on the tempered logits: a fixed probability, or a lower one where the entropy is high."""

    name = "eta"
    rule = "midstep_epsilon_eta.kernel:eta_rule"

    class Params(midstep.Params):
        """What a request may set."""

        cutoff: float = Field(
            3e-4, gt=0, lt=1, description="Keep tokens of at least this probability, or its root times exp(-entropy)."
        )

    def columns(self, params: Any) -> tuple[Tensor, ...]:
        """Return log cutoff."""
        return (params.cutoff.log(),)

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        return eta(logits, rows.params.cutoff)


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer epsilon and eta."""
    return [Epsilon, Eta]
