"""Qwen2.5-Math-PRM's format: a chat whose answer is the steps, each with a tag behind it, and two labels at each tag.

Zhang et al. 2025, "The Lessons of Developing Process Reward Models in Mathematical Reasoning", arXiv 2501.07301.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from .common import PRM, OfPRM, probability

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
CHAT = "<|im_start|>{role}\n{text}<|im_end|>\n"


class QwenPRM(PRM):
    """The probability of label 1 at the tag behind each step: of a model like Qwen2.5-Math-PRM."""

    name = "qwen_prm"

    class Params(OfPRM):
        """What the model wants to see."""

        tag: str = Field("<extra_0>", min_length=1, description="The token behind each step.")
        system: str = Field(SYSTEM, description="The chat's system message; empty: none.")
        good: int = Field(1, ge=0, le=15, description="The label of a good step.")

    async def score_many(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Score the steps of several answers in one call."""
        texts = [written(prompt, steps, self.params.tag, self.params.system) for prompt, steps in asked if steps]
        if not texts:
            return [[] for _ in asked]
        found = await (self._vllm(texts) if self.params.engine == "vllm" else self._sglang(texts))
        if len(found) != len(texts):
            raise RuntimeError(f"the server gave scores for {len(found)} answers, and was asked for {len(texts)}")
        rows = iter(found)
        return [[probability(row, self.params.good) for row in next(rows)] if steps else [] for _, steps in asked]

    async def _vllm(self, texts: list[str]) -> list[Any]:
        """Both columns of the softmax: one column alone would get a sigmoid."""
        body = {"model": await self.model(), "input": texts, "task": "token_classify", "add_special_tokens": False}
        found = (await self.ask("/pooling", body))["data"]
        return [item["data"] for item in sorted(found, key=lambda item: item["index"])]

    async def _sglang(self, texts: list[str]) -> list[Any]:
        body = {"model": await self.model(), "query": "", "items": texts, "apply_softmax": True}
        return list((await self.ask("/v1/score", {**body, "score_extraction_token": self.params.tag}))["scores"])


def written(prompt: str, steps: Sequence[str], tag: str, system: str) -> str:
    """Return the whole text; what would be taken for a tag or for the end of a turn is left out of prompt and steps."""

    def clean(text: str) -> str:
        for special in (tag, "<|im_start|>", "<|im_end|>"):
            text = text.replace(special, "")
        return text

    turns = {"system": system, "user": clean(prompt), "assistant": "".join(clean(step) + tag for step in steps)}
    return "".join(CHAT.format(role=role, text=text) for role, text in turns.items() if text or role != "system")
