"""P-less: keep the tokens that are at least as likely as two draws are to agree. It has no number to tune.

    keep x_i where p_i >= c          c = sum p^2, or with `norm` (V c - 1) / (V - 1)

Tan, Wu, Howard 2025, "p-less sampling: a robust hyperparameter-free approach for LLM decoding" (arXiv 2509.23234).
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

keep = midstep.operation(reference.keep, "midstep_p_less.kernel:keep")


class PLess(midstep.Sampler):
    """Keep rule on the tempered logits."""

    name = "p_less"
    rule = "midstep_p_less.kernel:rule"

    class Params(midstep.Params):
        """What a request may set."""

        norm: bool = Field(False, description="Use the paper's relaxed threshold, 0 for a uniform row: more stay.")

    def columns(self, params: Any) -> tuple[Tensor, ...]:
        """Return norm as a number."""
        return (params.norm.float(),)

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the tokens that stay, [R, V] bool."""
        return keep(logits, rows.params.norm)


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer p-less."""
    return [PLess]
