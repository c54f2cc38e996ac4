"""Top-n-sigma as a threshold rule in Triton."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from torch import Tensor

from midstep import threshold


@triton.jit
def rule(top, lse, entropy, collision, finite, spread, n, ddof):
    """Return the threshold; a row with one token has no spread, so dividing by 1 there gives it 0."""
    return top - n * tl.sqrt(spread / tl.maximum(finite - ddof, 1.0))


def keep(logits: Tensor, n: Tensor, ddof: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.keep`, up to a sum's rounding at the threshold."""
    return threshold.keep(logits, rule, n, ddof)
