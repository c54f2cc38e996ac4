"""PRMs that are language models: a step's score is the probability of '+' among '+' and '-' as the next token.

Math-Shepherd: Wang et al. 2023, arXiv 2312.08935. RLHFlow: Dong et al. 2024 (RLHFlow/RLHF-Reward-Modeling, math-rm).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from .common import PRM, OfPRM, probability

Ids = tuple[int, ...]
KEPT = 65536  # scores of prefixes


class LabelReward(PRM):
    """Asks for the next token's probabilities behind each step; a prefix that was asked for is not sent again."""

    class Params(OfPRM):
        """What the model wants to see."""

        tokenizer: str = Field(description="The model's tokenizer: a folder, or a name.", examples=["/models/prm"])
        good: str = Field("+", min_length=1, description="What follows a good step; one token.")
        bad: str = Field("-", min_length=1, description="What follows a bad step; one token.")

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._known: dict[Ids, float] = {}

    @abstractmethod
    def prefixes(self, prompt: str, steps: Sequence[str], tokenizer: Any) -> list[Ids]:
        """Return the token ids up to and with those that predict each step's label."""

    async def score_many(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Score the steps of several answers in one call."""
        if not any(steps for _, steps in asked):
            return [[] for _ in asked]
        tokenizer = await self.tokenizer(self.params.tokenizer)
        labels = [single(tokenizer, text) for text in (self.params.good, self.params.bad)]
        wanted = [self.prefixes(prompt, steps, tokenizer) if steps else [] for prompt, steps in asked]
        fresh = list(dict.fromkeys(ids for own in wanted for ids in own if ids not in self._known))
        if fresh:
            scores = await (self._vllm if self.params.engine == "vllm" else self._sglang)(fresh, labels)
            if len(scores) != len(fresh):
                raise RuntimeError(f"the server gave {len(scores)} scores for {len(fresh)} prefixes")
            if len(self._known) + len(fresh) > KEPT:
                kept = {ids for own in wanted for ids in own}
                self._known = {ids: score for ids, score in self._known.items() if ids in kept}
            self._known |= dict(zip(fresh, scores, strict=True))
        return [[self._known[ids] for ids in own] for own in wanted]

    async def _vllm(self, prefixes: list[Ids], labels: list[int]) -> list[float]:
        body = {"model": await self.model(), "query": [], "items": [list(ids) for ids in prefixes]}
        answer = await self.ask("/generative_scoring", {**body, "label_token_ids": labels, "apply_softmax": True})
        return [float(item["score"]) for item in sorted(answer["data"], key=lambda item: item["index"])]

    async def _sglang(self, prefixes: list[Ids], labels: list[int]) -> list[float]:
        body = {"model": await self.model(), "query": [], "items": [list(ids) for ids in prefixes]}
        answer = await self.ask("/v1/score", {**body, "label_token_ids": labels, "apply_softmax": True})
        return [probability(row, 0) for row in answer["scores"]]


class MathShepherd(LabelReward):
    """The probability of '+' right behind the tag at each step's end: of Math-Shepherd's model."""

    name = "math_shepherd"

    class Params(LabelReward.Params):
        """What the model wants to see."""

        good: str = Field(" +", min_length=1, description="What follows a good step; one token.")
        bad: str = Field(" -", min_length=1, description="What follows a bad step; one token.")
        tag: str = Field(" ки", min_length=1, description="The token at each step's end.")
        between: str = Field("\n", description="What stands between two steps.")

    def prefixes(self, prompt: str, steps: Sequence[str], tokenizer: Any) -> list[Ids]:
        """Return the ids up to and with each tag: the tag itself predicts, and what comes behind it is not read."""
        tag = self.params.tag
        written = [step.replace(tag, "") + tag for step in steps]
        text = f"{prompt.replace(tag, '')} {self.params.between.join(written)}"
        ids = tokenizer.encode(text)
        number = single(tokenizer, tag)
        places = [place for place, token in enumerate(ids) if token == number]
        if len(places) != len(steps):
            raise ValueError(f"{len(places)} tags {tag!r} in the token ids of {len(steps)} steps: not its tokenizer?")
        return [tuple(ids[: place + 1]) for place in places]


class RLHFlowPRM(LabelReward):
    """The probability that a chat whose turns are the steps is answered '+': of RLHFlow's PRMs."""

    name = "rlhflow_prm"

    class Params(LabelReward.Params):
        """What the model wants to see."""

    def prefixes(self, prompt: str, steps: Sequence[str], tokenizer: Any) -> list[Ids]:
        """Return the ids up to the head of each answer: its last token predicts, one before the '+' itself."""
        chat: list[dict[str, str]] = []
        found = []
        for number, step in enumerate(steps):
            chat.append({"role": "user", "content": f"{prompt} {step}" if number == 0 else step})
            found.append(tuple(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)))
            chat.append({"role": "assistant", "content": self.params.good})
        return found


def single(tokenizer: Any, text: str) -> int:
    """Return the token that a text is; a blank before it is the mark of a word's beginning, whatever the vocabulary.

    Math-Shepherd's '+' is "▁+" (648) and not "+": its vocabulary has both.

    Raises:
        ValueError: it is no single token.
    """
    known = tokenizer.get_vocab()
    for spelled in (text, text.replace(" ", "▁"), text.replace(" ", "Ġ")):
        if spelled in known:
            return int(known[spelled])
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens of this tokenizer, and must be one")
    return int(ids[0])
