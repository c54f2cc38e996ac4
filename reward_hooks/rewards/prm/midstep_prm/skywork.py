"""Skywork-o1-Open-PRM's format: a value head at every token, read at the newline behind each step.

Source: SkyworkAI/skywork-o1-prm-inference, model_utils/io_utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from .common import PRM, OfPRM


class SkyworkPRM(PRM):
    """The sigmoid of the value at the newline behind each step: of Skywork-o1-Open-PRM."""

    name = "skywork_prm"

    class Params(OfPRM):
        """What the model wants to see."""

        tokenizer: str = Field(description="The model's tokenizer: a folder, or a name.", examples=["/models/prm"])

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.engine != "vllm":
            raise ValueError(f"skywork_prm: engine = {self.params.engine!r}; only vllm has a server for it")

    async def score_many(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Score the steps of several answers in one call.

        Raises:
            RuntimeError: the server gives not one value per token.
        """
        if not any(steps for _, steps in asked):
            return [[] for _ in asked]
        tokenizer = await self.tokenizer(self.params.tokenizer)
        written = [tagged(prompt, steps, tokenizer) for prompt, steps in asked if steps]
        values = iter(await self._values([ids for ids, _ in written]))
        read = [[sigmoid(own[place]) for place in places] for (_, places), own in zip(written, values, strict=True)]
        scores = iter(read)
        return [next(scores) if steps else [] for _, steps in asked]

    async def _values(self, prompts: list[list[int]]) -> list[list[float]]:
        body = {"model": await self.model(), "input": prompts}
        # Skywork's own plugin of vLLM puts the raw values, one per token, where an embedding belongs
        found = sorted((await self.ask("/v1/embeddings", body))["data"], key=lambda item: item["index"])
        values = [[float(v[0] if isinstance(v, list) else v) for v in item["embedding"]] for item in found]
        for own, ids in zip(values, prompts, strict=True):
            if len(own) != len(ids):
                raise RuntimeError(f"the server gave {len(own)} values for {len(ids)} tokens: not a value per token?")
        return values


def tagged(prompt: str, steps: Sequence[str], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the token ids, and the places of the newlines behind the steps.

    A step's own newlines become blanks: each newline would be one more place.
    """
    begin = (tokenizer.bos_token or "") + prompt + "\n"
    ids = list(tokenizer.encode(begin))
    newline = tokenizer.encode("\n")[-1]
    places = []
    for step in steps:
        ids += [*tokenizer.encode(" ".join(step.splitlines()) or " "), newline]
        places.append(len(ids) - 1)
    return ids, places


def sigmoid(value: float) -> float:
    """Return 1 / (1 + e^-value), for any value."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
