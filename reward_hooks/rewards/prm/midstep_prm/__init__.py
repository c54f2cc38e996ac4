"""Process reward models on a server: each format puts its steps together in its own way, and is read in its own place.

qwen_prm         Qwen2.5-Math-PRM: steps joined by <extra_0>; two labels at each of them
skywork_prm      Skywork-o1-Open-PRM: a value at the newline behind each step; its sigmoid
math_shepherd    Math-Shepherd: what follows each step's " ки", '+' or '-'
rlhflow_prm      RLHFlow's PRMs: a chat whose turns are the steps; what is answered, '+' or '-'
"""

from collections.abc import Sequence

import midstep

from .labels import MathShepherd, RLHFlowPRM
from .qwen import QwenPRM
from .skywork import SkyworkPRM

SEAM = 1

__all__ = ["MathShepherd", "QwenPRM", "RLHFlowPRM", "SkyworkPRM"]


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Reward]]:
    """Offer the rewards."""
    return [QwenPRM, SkyworkPRM, MathShepherd, RLHFlowPRM]
