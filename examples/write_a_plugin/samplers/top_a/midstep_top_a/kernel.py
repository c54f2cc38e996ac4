"""Top-a as a threshold rule in Triton."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from torch import Tensor

from midstep import threshold


@triton.jit
def rule(top, lse, entropy, collision, finite, spread, log_a, power):
    """Return the threshold: the reference's, but for the order in which lse was summed."""
    return top + log_a + (power - 1) * tl.minimum(top - lse, 0.0)


def keep(logits: Tensor, a: Tensor, power: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.keep`."""
    return threshold.keep(logits, rule, a.log(), power)
