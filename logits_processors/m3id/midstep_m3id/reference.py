"""M3ID's weights in torch: the definition that the kernel is tested against."""

import torch
from torch import Tensor

GATE, MASK = 0, 1


def weigh(
    top: Tensor,
    lse: Tensor,
    position: Tensor,
    decay: Tensor,
    mode: Tensor,
    threshold: Tensor,
    plausible: Tensor,
    most: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return how far each row is moved away from the prompt without its context, and what is removed from it.

    With gamma_t = e^(-decay t), the weight (1 - gamma_t) / gamma_t is e^(decay t) - 1, at most `most`; with the gate it
    is 0 where the best token's probability e^(top - lse) is not below `threshold`.

    Args:
        top: [R] float32, the largest logit; `lse`: log sum exp of the row.
        position: [R] int64, the tokens generated so far, t.
        decay: [R] float32, at least 0.
        mode: [R] int64, GATE or MASK.
        threshold: [R] float32.
        plausible: [R] float32, at least 0.
        most: [R] float32, at least 0.

    Returns:
        The weight and the lowest logit that may stay, both [R] float32; the latter is -inf with the gate.
    """
    weight = torch.minimum(torch.expm1(decay.double() * position), most.double()).float()
    gates = mode == GATE
    weight = torch.where(gates & ~((top - lse).exp() < threshold), 0.0, weight)
    return weight, torch.where(gates, -torch.inf, top + plausible.log())
