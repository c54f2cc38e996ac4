"""What a server allows one search."""

from __future__ import annotations

from ..beside import Reward, Search
from ..configuration import Limits
from ..methods import Params


def check_width(finder: type[Search], params: Params, limits: Limits) -> None:
    """Refuse a search that is wider than allowed.

    Raises:
        ValueError: it may keep more continuations in flight than `limits.width`.
    """
    width = finder.width(params)
    if width > limits.width:
        raise ValueError(
            f"{finder.name} with these parameters keeps {width} continuations in flight; allowed (limits.width): "
            f"at most {limits.width}; ask for fewer"
        )


def check_reading(finder: type[Search], params: Params, reward: Reward, prompt: int, limits: Limits) -> None:
    """Refuse a search whose first scores cost more than the reward may read; beyond them, what is left ends branches.

    Args:
        prompt: its tokens.

    Raises:
        ValueError: an equal share of `limits.reward_tokens` pays for no score.
    """
    width, least = max(finder.width(params), 1), reward.spends(0, prompt + 1)
    if limits.reward_tokens // width < least:
        raise ValueError(
            f"reward {reward.name!r} reads {least} tokens to score the first one behind this prompt, in each of "
            f"{width} continuations; allowed (limits.reward_tokens): {limits.reward_tokens} in all; ask for fewer "
            "continuations, or for a reward that reads fewer tokens"
        )
