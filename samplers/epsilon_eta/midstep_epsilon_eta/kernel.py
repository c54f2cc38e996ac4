"""Epsilon and eta as threshold rules in Triton."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from torch import Tensor

from midstep import threshold


@triton.jit
def epsilon_rule(top, lse, entropy, collision, finite, spread, log_cutoff, unused):
    """Return the threshold, at most the best logit."""
    return tl.minimum(top, lse + log_cutoff)


@triton.jit
def eta_rule(top, lse, entropy, collision, finite, spread, log_cutoff, unused):
    """Return the threshold, at most the best logit."""
    return tl.minimum(top, lse + tl.minimum(log_cutoff, 0.5 * log_cutoff - entropy))


def epsilon(logits: Tensor, cutoff: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.epsilon`, up to a rounding at the threshold."""
    return threshold.keep(logits, epsilon_rule, cutoff.log())


def eta(logits: Tensor, cutoff: Tensor) -> Tensor:
    """Say which tokens stay; arguments and result as in `reference.eta`, up to a rounding at the threshold."""
    return threshold.keep(logits, eta_rule, cutoff.log())
