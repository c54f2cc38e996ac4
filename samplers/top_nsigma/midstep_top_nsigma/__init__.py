"""Top-n-sigma: keep the tokens whose logit is within n standard deviations of the best one.

    keep x_i where x_i >= max x - n sigma        sigma: the standard deviation of the row's logits

Tang, Liu, Xu, Huang 2024, "Top-n-sigma: not all logits are you need" (arXiv 2411.07641).
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

keep = midstep.operation(reference.keep, "midstep_top_nsigma.kernel:keep")


class TopNSigma(midstep.Sampler):
    """Keep rule on the tempered logits: a temperature changes nothing but roundings, for it divides sigma too."""

    name = "top_nsigma"
    rule = "midstep_top_nsigma.kernel:rule"

    class Params(midstep.Params):
        """What a request may set."""

        n: float = Field(1.0, gt=0, description="Keep logits at most this many standard deviations below the best.")
        ddof: int = Field(1, ge=0, le=1, description="Tokens minus this divide the squares: 1 sample, 0 population.")

    def columns(self, params: Any) -> tuple[Tensor, ...]:
        """Return n and ddof."""
        return params.n, params.ddof

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        return keep(logits, rows.params.n, rows.params.ddof)


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer top-n-sigma."""
    return [TopNSigma]
