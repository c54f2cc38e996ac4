"""DeepConf, the online rule: end an answer whose confidence has dropped.

    C_t = -(1/k) sum over the k likeliest tokens of log p        the token's confidence, on the untempered softmax
    end at the first t where the mean of the last `window` C falls below `threshold`, once the window is full

Fu, Wang, Tian, Zhao 2025, "Deep think with confidence" (arXiv 2508.15260), section 3.2; code facebookresearch/deepconf.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

confidence = midstep.operation(reference.confidence, "midstep_deepconf.kernel:confidence")
window_mean = midstep.operation(reference.window_mean, "midstep_deepconf.kernel:window_mean")


class DeepConf(midstep.StopController):
    """Stops a request whose group confidence falls below a threshold that the caller measured on warm-up answers."""

    name = "deepconf"

    class Params(midstep.Params):
        """What a request may set."""

        threshold: float = Field(
            examples=[8.0], description="End the answer when the window's mean confidence is below this."
        )
        window: int = Field(2048, ge=1, le=8192, description="Tokens in the sliding window.")
        k: int = Field(20, ge=1, le=32, description="How many of the likeliest tokens make a token's confidence.")

    state = {"ring": midstep.Column(torch.float32, shape=("window",), init=0.0)}  # noqa: RUF012 - ClassVar of the base

    def decide(self, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        """End the rows whose window is full and below the threshold."""
        rows.state["ring"], mean = window_mean(
            rows.state["ring"], confidence(logits, rows.params.k), rows.position, rows.params.window
        )
        ends = (rows.position + 1 >= rows.params.window) & (mean < rows.params.threshold)
        return midstep.Decision(ends.long(), mean, rows.params.threshold)


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.StopController]]:
    """Offer DeepConf."""
    return [DeepConf]
