"""What the formats have in common: the server's kind, the cost of a call, a tokenizer, probabilities."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import Field

from midstep.drivers.served import Served, ServedReward


class OfPRM(Served):
    """Where the model is, and what serves it."""

    engine: Literal["vllm", "sglang"] = Field("vllm", description="What the server is.")
    overhead: int = Field(
        64, ge=0, description="Tokens of the format, beside prompt and answer, as a budget counts them."
    )


class PRM(ServedReward):
    """A process reward model on a server."""

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._tokenizer: Any = None
        self._turn = asyncio.Lock()

    def spends(self, known: int, new: int) -> int:
        """Return all of prompt and answer, and the format: such a server reads every call from its beginning."""
        return known + new + int(self.params.overhead)

    async def tokenizer(self, folder: str) -> Any:
        """Return the tokenizer of a folder, loaded once."""
        async with self._turn:
            if self._tokenizer is None:
                from transformers import AutoTokenizer

                self._tokenizer = await asyncio.to_thread(AutoTokenizer.from_pretrained, folder)
        return self._tokenizer


def probability(row: Any, of: int) -> float:
    """Return one label's probability.

    Args:
        row: the probabilities of all labels.
        of: the label.

    Raises:
        RuntimeError: they are no probabilities: the server gave raw numbers, or one label alone.
    """
    if not (isinstance(row, list) and len(row) > max(of, 1) and all(isinstance(p, int | float) for p in row)):
        raise RuntimeError(f"the server gave {row!r} where the probabilities of {max(of, 1) + 1} labels or more belong")
    if not (abs(sum(row) - 1) < 1e-2 and all(0 <= p <= 1 for p in row)):
        raise RuntimeError(f"the server gave {row}, and these are no probabilities: its pooler's setting?")
    return float(row[of])
