"""Verifiers as rewards: they know the answer, and need no model.

math_verify    1 if the text up to the step comes to the known answer
chain_sum      1 if the step's running value is right (reasoning-gym's `chain_sum`)
code           the share of tests that the last block of code in the text up to the step passes, in a sandbox
"""

from collections.abc import Sequence

import midstep

from .code import Code
from .maths import MathVerify
from .sums import ChainSum

SEAM = 1

__all__ = ["ChainSum", "Code", "MathVerify"]


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Reward]]:
    """Offer the verifiers."""
    return [MathVerify, ChainSum, Code]
