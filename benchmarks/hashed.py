"""The reward of `search.py`: scores that mean nothing, from a model's place; midstep and its-hub ask the same one.

Its numbers are a hash of the text. its-hub, in an environment without midstep, has it from here; midstep has it as the
rewards of `hashed_reward.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import blake2b

PACE = 0.05  # seconds for a text


class Asked:
    """Answers as a model on a machine of its own would: one text after the other.

    Args:
        pace: seconds for a text.
    """

    def __init__(self, pace: float) -> None:
        self._pace, self._turn = pace, asyncio.Lock()

    async def ask(self, texts: Sequence[str]) -> list[float]:
        """Return a score for each text, 0.1 to 0.9."""
        if self._pace:
            async with self._turn:
                await asyncio.sleep(self._pace * len(texts))
        return [hashed(text) for text in texts]


def hashed(text: str) -> float:
    """Return the score of a text."""
    return 0.1 + 0.8 * int.from_bytes(blake2b(text.strip().encode(), digest_size=4).digest(), "big") / 2**32
