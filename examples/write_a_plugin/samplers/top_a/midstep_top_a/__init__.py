"""Top-a: keep the tokens that are at least `a` times as likely as a power of the best one's probability.

    keep x_i where p_i >= a * p_max^power

Peng (BlinkDL) 2022, "top-a sampling", in the README of github.com/BlinkDL/RWKV-LM.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

keep = midstep.operation(reference.keep, "midstep_top_a.kernel:keep")


class TopA(midstep.Sampler):
    """Keep rule on the tempered logits."""

    name = "top_a"
    rule = "midstep_top_a.kernel:rule"

    class Params(midstep.Params):
        """What a request may set."""

        a: float = Field(0.2, ge=0, le=1, description="Keep tokens at least this many times as likely as the power.")
        power: float = Field(2.0, ge=1, le=4, description="The power of the best token's probability.")

    def columns(self, params: Any) -> tuple[Tensor, ...]:
        """Return log a, and the power."""
        return params.a.log(), params.power

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        return keep(logits, rows.params.a, rows.params.power)


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer top-a."""
    return [TopA]
