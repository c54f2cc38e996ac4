"""A search's result in OpenAI's shape, whole or in chunks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..beside import Candidate
from ..searching import Result, Spent
from .body import Asked


@dataclass(frozen=True)
class Shape:
    """What the parts of one answer have in common.

    Args:
        chat: whether it is a chat's.
        name: its id.
        model: the name under which the model is served.
        created: seconds since 1970.
    """

    chat: bool
    name: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return an answer in one piece."""
        return self._with("chat.completion" if self.chat else "text_completion", choices, more)

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return a piece of a stream."""
        return self._with("chat.completion.chunk" if self.chat else "text_completion", choices, more)

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        """Return a whole choice."""
        own: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": index, **own, "logprobs": None, "finish_reason": reason}

    def delta(self, index: int, text: str | None, reason: str | None = None, *, first: bool = False) -> dict[str, Any]:
        """Return a choice's next piece; without a text, an empty one."""
        if not self.chat:
            return {"index": index, "text": text or "", "logprobs": None, "finish_reason": reason}
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        delta |= {} if text is None else {"content": text}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}

    def _with(self, kind: str, choices: list[dict[str, Any]], more: Mapping[str, Any]) -> dict[str, Any]:
        known = {"id": self.name, "object": kind, "created": self.created, "model": self.model}
        return {**known, "choices": choices, **more}


def whole(shape: Shape, result: Result, asked: Asked) -> dict[str, Any]:
    """Return the answer to a request that does not stream."""
    best = ranked(result, asked.n)
    choices = [shape.choice(i, made.text, reason(made)) for i, (made, _) in enumerate(best)]
    return shape.whole(choices, usage=usage(result), midstep=about(result, best, asked))


def chunks(shape: Shape, result: Result, asked: Asked) -> Iterator[dict[str, Any]]:
    """Yield the answer to one that streams: texts, ends, and the usage where it is asked for."""
    best = ranked(result, asked.n)
    for i, (made, _) in enumerate(best):
        yield shape.chunk([shape.delta(i, made.text, first=i > 0)])
    ends = [shape.delta(i, None, reason(made)) for i, (made, _) in enumerate(best)]
    for i, end in enumerate(ends):
        last = i == len(ends) - 1
        yield shape.chunk([end], **({"midstep": about(result, best, asked)} if last else {}))
    if asked.stream_options.include_usage:
        yield shape.chunk([], usage=usage(result))


def ranked(result: Result, n: int) -> list[tuple[Candidate, float]]:
    """Return the best n of distinct texts with their weights, the first of equals first; there may be fewer."""
    order = sorted(range(len(result.weights)), key=lambda i: -result.weights[i])
    found: dict[str, tuple[Candidate, float]] = {}
    for i in order:
        found.setdefault(result.candidates[i].text, (result.candidates[i], result.weights[i]))
    return list(found.values())[:n]


def reason(made: Candidate) -> str:
    """Return OpenAI's word for why an answer is not longer."""
    return "stop" if made.ended == "end" else "length"


def usage(result: Result) -> dict[str, Any]:
    """Return every token: of the prompt, once; all that the engine made; and in the total those of the reward too."""
    spent, prompt = result.spent, int(result.trace["prompt_tokens"])
    total = prompt + spent.engine + spent.reward
    counts = {"prompt_tokens": prompt, "completion_tokens": spent.engine, "total_tokens": total}
    return {**counts, "midstep": tokens(spent)}


def tokens(spent: Spent) -> dict[str, int | None]:
    """Return the tokens by what they were spent on; None: the engine does not say."""
    computed = None if spent.cached is None else spent.sent - spent.cached
    own = {"engine": spent.engine, "discarded": spent.discarded, "reward": spent.reward}
    return {**own, "sent": spent.sent, "computed": computed, "cached": spent.cached, "calls": spent.calls}


def about(result: Result, best: list[tuple[Candidate, float]], asked: Asked) -> dict[str, Any]:
    """Return what OpenAI's fields have no place for; lists are by choice."""
    known = {key: result.trace[key] for key in ("search", "params", "seed", "budget", "seconds")}
    known |= {"reward": asked.reward, "candidates": len(result.candidates), "weights": [weight for _, weight in best]}
    known |= {"scores": [list(made.scores) for made, _ in best], "score": [made.score for made, _ in best]}
    known |= {"ended": [made.ended for made, _ in best]}
    return {**known, "trace": result.trace} if asked.trace else known
