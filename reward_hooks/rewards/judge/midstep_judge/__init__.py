"""A generative judge: the probability of yes among yes and no, of one token of a language model's answer.

    s_i = p(yes) / (p(yes) + p(no)),   p over the likeliest tokens that are a spelling of the word

Zheng et al. 2023, "Judging LLM-as-a-judge", arXiv 2306.05685; by one token's probability: Zhang et al. 2024,
"Generative verifiers", arXiv 2408.15240.
"""

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

import midstep
from midstep.drivers.served import Served, ServedReward
from midstep.searching import together

SEAM = 1

TEMPLATE = """Question:
{question}

Solution so far:
{solution}

Is every step of this solution right, up to its last one? Answer with one word, Yes or No."""
KEPT = 65536  # judgements


class Judge(ServedReward):
    """Asks a chat model on any OpenAI-compatible server about the text up to each step."""

    name = "judge"

    class Params(Served):
        """What is asked, and what is an answer."""

        template: str = Field(
            TEMPLATE,
            description="What the judge is asked; {solution} is in it, {question} and {step} may be.",
        )
        system: str = Field("", description="The chat's system message; empty: none.")
        yes: str = Field("yes", min_length=1, description="The word for a good step; its case and blanks do not count.")
        no: str = Field("no", min_length=1, description="The word for a bad one.")
        top: int = Field(20, ge=2, le=100, description="Likely tokens that are looked at; servers allow 20 or less.")
        at_once: int = Field(64, ge=1, le=1024, description="Calls at a time.")
        overhead: int = Field(
            128, ge=0, description="Tokens of template and chat, beside prompt and answer, as a budget counts them."
        )

        @field_validator("template")
        @classmethod
        def _holds_the_solution(cls, template: str) -> str:
            if "{solution}" not in template:
                raise ValueError("the template must hold {solution}, the text up to the step that is judged")
            return template

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._known: dict[tuple[str, str], float] = {}
        self._slots = asyncio.Semaphore(self.params.at_once)

    async def score_many(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Score the steps of several answers, each step by one call; what was judged before is not asked again."""
        written = [
            [(prompt, "\n".join(steps[: i + 1]), step) for i, step in enumerate(steps)] for prompt, steps in asked
        ]
        fresh = {(prompt, text): step for own in written for prompt, text, step in own}
        fresh = {key: step for key, step in fresh.items() if key not in self._known}
        found = await together(self._judged(*key, step) for key, step in fresh.items())
        if len(self._known) + len(found) > KEPT:
            wanted = {(prompt, text) for own in written for prompt, text, _ in own}
            self._known = {key: score for key, score in self._known.items() if key in wanted}
        self._known |= dict(zip(fresh, found, strict=True))
        return [[self._known[prompt, text] for prompt, text, _ in own] for own in written]

    def spends(self, known: int, new: int) -> int:
        """Return all of prompt and answer, the template and one token; a prefix cache of the server may save most."""
        return known + new + int(self.params.overhead) + 1

    async def _judged(self, prompt: str, solution: str, step: str) -> float:
        text = filled(self.params.template, {"question": prompt, "solution": solution, "step": step})
        messages = [{"role": "system", "content": self.params.system}] if self.params.system else []
        body: dict[str, Any] = {"model": await self.model(), "messages": [*messages, {"role": "user", "content": text}]}
        body |= {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": self.params.top}
        async with self._slots:
            answer = await self.ask("/v1/chat/completions", body)
        try:
            tokens = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            likely = [(str(token["token"]), float(token["logprob"])) for token in tokens]
        except (KeyError, IndexError, TypeError) as error:
            raise RuntimeError(f"{self.url} gives no top_logprobs of its first token; a judge needs them") from error
        return chance(likely, self.params.yes, self.params.no)


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return the template with its places filled; other braces, such as LaTeX's, stay, and so do the values' own."""
    places = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(places, lambda found: values[found[0][1:-1]], template)


def chance(likely: Sequence[tuple[str, float]], yes: str, no: str) -> float:
    """Return p(yes) / (p(yes) + p(no)).

    Args:
        likely: tokens with their logprobs.
        yes: the word, in any case and with blanks around it.
        no: the other one.

    Raises:
        RuntimeError: neither is among the likely tokens.
    """
    total = {word: 0.0 for word in (yes, no)}
    for token, logprob in likely:
        word = token.strip(" \n\t▁Ġ*\"'").lower()
        for name in total:
            if word == name.strip().lower():
                total[name] += math.exp(logprob)
    if not sum(total.values()):
        tokens = ", ".join(repr(token) for token, _ in likely[:5])
        raise RuntimeError(f"neither {yes!r} nor {no!r} is likely as the judge's first token; likely are {tokens}")
    return total[yes] / sum(total.values())


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.Reward]]:
    """Offer the judge."""
    return [Judge]
