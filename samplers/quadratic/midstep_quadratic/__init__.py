"""Quadratic sampling: replace each logit's distance to the best one by its square, or by a cubic of it.

    y_i = m - factor * (k d_i^2 - s d_i^3)
    with  m = max x,  d_i = x_i - m,  k = (3 - curve) / 2,  s = (curve - 1) / 2

kalomaze 2024, "quadratic sampling" or "smooth sampling"; code oobabooga/text-generation-webui.
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

bend = midstep.operation(reference.bend, "midstep_quadratic.kernel:bend")


class Quadratic(midstep.LogitsProcessor):
    """Reshapes the distribution before the temperature; the order of the tokens stays."""

    name = "quadratic"

    class Params(midstep.Params):
        """What a request may set."""

        factor: float = Field(0.25, ge=0, description="The square's factor; 0 changes nothing.")
        curve: float = Field(1.0, ge=1, le=3, description="1 is the square alone, 3 the cube alone.")

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the bent logits, [R, V] float32."""
        return bend(logits, rows.params.factor, rows.params.curve)


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer quadratic sampling."""
    return [Quadratic]
