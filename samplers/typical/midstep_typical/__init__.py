"""Locally typical sampling: keep the tokens whose surprise is nearest to the row's entropy, until their mass is enough.

    s_i = |-log p_i - H|
    keep x_i where s_i <= t        t: the smallest for which the kept tokens have the probability `mass` together

Meister, Pimentel, Wiher, Cotterell 2022, "Locally typical sampling" (arXiv 2202.00666, TACL 2023).
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

keep = midstep.operation(reference.keep, "midstep_typical.kernel:keep")


class Typical(midstep.Sampler):
    """Keep rule on the tempered logits. It may remove the best token."""

    name = "typical"

    class Params(midstep.Params):
        """What a request may set."""

        mass: float = Field(0.9, gt=0, lt=1, description="Keep the most typical tokens of this probability together.")
        min_keep: int = Field(1, ge=1, description="Keep at least so many tokens.")

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        return keep(logits, rows.params.mass, rows.params.min_keep)


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer locally typical sampling."""
    return [Typical]
