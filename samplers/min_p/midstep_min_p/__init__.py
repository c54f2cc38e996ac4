"""Min-p: keep the tokens that are at least p times as likely as the best one.

    keep x_i where x_i >= max x + log p

Nguyen, Baker, Kirsch, Neo, Schwartz-Ziv 2024, "Turning up the heat: min-p sampling" (arXiv 2407.01082, ICLR 2025).
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

keep = midstep.operation(reference.keep, "midstep_min_p.kernel:keep")


class MinP(midstep.Sampler):
    """Keep rule on the tempered logits."""

    name = "min_p"
    rule = "midstep_min_p.kernel:rule"

    class Params(midstep.Params):
        """What a request may set."""

        p: float = Field(0.05, ge=0, le=1, description="Keep tokens at least this many times as likely as the best.")

    def columns(self, params: Any) -> tuple[Tensor, ...]:
        """Return log p."""
        return (params.p.log(),)

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        return keep(logits, rows.params.p)


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer min-p."""
    return [MinP]
