"""P-less as a threshold rule in Triton."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from torch import Tensor

from midstep import threshold

from . import reference

TOLERANCE = tl.constexpr(reference.TOLERANCE)


@triton.jit
def rule(top, lse, entropy, collision, finite, spread, norm, unused):
    """Return the threshold, at most the best logit: beside a large one, float32 would round the tolerance away."""
    relaxed = (finite * tl.exp(collision) - 1.0) / tl.maximum(finite - 1.0, 1.0)
    # The bound stands for 0, whose logarithm is -inf.
    log_c = tl.where(norm > 0.5, tl.log(tl.maximum(relaxed, 1.0e-37)), collision)
    return tl.minimum(top, lse + (log_c - TOLERANCE))


def keep(logits: Tensor, norm: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.keep`, up to a sum's rounding at the threshold."""
    return threshold.keep(logits, rule, norm)
