"""Repetition: end an answer whose last tokens are one block, again and again.

    end at the first t for which a q <= period exists such that the last max(times * q, least) tokens have period q

After the loop detection of TrimR: Lin et al. 2025, "TrimR" (arXiv 2505.17155, ICLR 2026).
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

import midstep

from . import reference

SEAM = 1

repeated = midstep.operation(reference.repeated, "midstep_repetition.kernel:repeated")


class Repetition(midstep.StopController):
    """Stops a request that has fallen into a loop."""

    name = "repetition"
    history = True

    class Params(midstep.Params):
        """What a request may set."""

        times: int = Field(4, ge=2, le=32, description="How many blocks in a row make a loop.")
        period: int = Field(
            64, ge=1, le=reference.LONGEST_PERIOD, description="The longest block looked for, in tokens."
        )
        least: int = Field(32, ge=1, le=reference.MOST, description="How many tokens the blocks must have together.")

    def decide(self, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        """End the rows whose generated tokens end in a loop."""
        ids, lengths = rows.history()
        params = rows.params
        stretch, needed = repeated(ids, lengths, rows.position, params.times, params.period, params.least)
        return midstep.Decision((stretch >= needed).long(), stretch.float(), needed.float())


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.StopController]]:
    """Offer the stop."""
    return [Repetition]
