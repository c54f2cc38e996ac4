"""Min-p as a threshold rule in Triton."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl  # noqa: F401  (the interpreter looks for it)
from torch import Tensor

from midstep import threshold


@triton.jit
def rule(top, lse, entropy, collision, finite, spread, log_p, unused):
    """Return the threshold: the same sum as the reference's, so the two masks are equal to the bit."""
    return top + log_p


def keep(logits: Tensor, p: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.keep`, equal to it in every bit."""
    return threshold.keep(logits, rule, p.log())
