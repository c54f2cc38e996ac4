"""Dynamic temperature and EDT: a temperature for each token, made of the entropy H of its distribution.

    dynamic_temperature    T = low + (high - low) * (H / log n)^exponent        n tokens are above -inf
    edt                    T = t0 * 0.8^(theta / H)

kalomaze 2023, "dynamic temperature"; code ggml-org/llama.cpp. Zhang, Bao, Huang 2024, "EDT: Improving large language
models' generation by entropy-based dynamic temperature sampling" (arXiv 2403.14541).
"""

from collections.abc import Sequence

from pydantic import Field, model_validator
from torch import Tensor

import midstep

from . import reference

SEAM = 1

dynamic_temperature = midstep.operation(
    reference.dynamic_temperature, "midstep_dynamic_temperature.kernel:dynamic_temperature"
)
edt = midstep.operation(reference.edt, "midstep_dynamic_temperature.kernel:edt")


class DynamicTemperature(midstep.LogitsProcessor):
    """Divides the logits by a temperature between two bounds: the more uncertain the model, the higher."""

    name = "dynamic_temperature"

    class Params(midstep.Params):
        """What a request may set."""

        low: float = Field(0.5, ge=0, description="The temperature of a certain distribution; 0 takes the best token.")
        high: float = Field(1.5, description="The temperature of a uniform distribution; at least low.")
        exponent: float = Field(1.0, gt=0, description="Above 1: near low for longer; below 1: near high sooner.")

        @model_validator(mode="after")
        def _in_order(self) -> "DynamicTemperature.Params":
            if self.low > self.high:
                raise ValueError(
                    f"low = {self.low} is above high = {self.high}; allowed: 0 <= low <= high; swap the two, or set "
                    "both to the same number for a temperature that does not move"
                )
            return self

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the logits at their temperature, [R, V] float32."""
        return dynamic_temperature(logits, rows.params.low, rows.params.high, rows.params.exponent)


class Edt(midstep.LogitsProcessor):
    """Divides the logits by a temperature that falls with the entropy: the more certain the model, the lower."""

    name = "edt"

    class Params(midstep.Params):
        """What a request may set."""

        t0: float = Field(1.0, gt=0, description="The temperature that a very uncertain distribution comes near.")
        theta: float = Field(1.0, ge=0, description="How early the temperature falls; 0 leaves it at t0.")

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the logits at their temperature, [R, V] float32."""
        return edt(logits, rows.params.t0, rows.params.theta)


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer dynamic temperature and EDT."""
    return [DynamicTemperature, Edt]
