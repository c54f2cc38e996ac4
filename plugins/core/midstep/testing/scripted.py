"""An engine without a model whose best answer is known: for tests, and for authors of searches.

An answer has `steps` steps; each is some filler words, a number from 0 to `best`, and a separator that is spelled in
one token, in two, or in one together with what comes before or after it. All is drawn from the seed and the position.
The value of an answer is the mean of its numbers over `best`: the optimum is 1, and a plain sample's is 1/2 on average.
Temperature 0 always says `best`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from ..beside import Reward
from ..searching import Call, Piece, Streaming, uniform

END, WORD, DOT, LINE, LINES, DOT_LINE, LINES_HASH, NUMBER = range(8)
TEXTS = ("", " w", ".", "\n", "\n\n", ".\n", "\n\n#")
PROMPT = (1000, 1001, 1002)


class Script:
    """Its tokenizer: a token from 1000 on is a letter of a prompt."""

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """Return the text of token ids."""
        return "".join(map(_text, ids))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a prompt."""
        return [1000 + ord(letter) for letter in text]

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """Return the ids of a chat."""
        return self.encode("".join(str(message["content"]) for message in messages))


def _text(token: int) -> str:
    if token >= 1000:
        return chr(token - 1000)
    return TEXTS[token] if token < NUMBER else f" {token - NUMBER}"


class ScriptedEngine(Streaming):
    """The engine; it counts what it makes.

    Args:
        steps: of an answer.
        best: the largest number.
        shuffle: the order in which tokens arrive is drawn from this; None: as asked for.
        dies: which calls fail, and with what the engine would say; None: none does.
    """

    def __init__(
        self,
        steps: int = 4,
        best: int = 3,
        shuffle: int | None = None,
        dies: Callable[[Call], str | None] = lambda call: None,
    ) -> None:
        super().__init__(Script())
        self.steps, self.best, self.dies = steps, best, dies
        self.tokens, self.running, self.widest, self.calls = 0, 0, 0, list[Call]()
        self._delays = random.Random(shuffle) if shuffle is not None else None

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """Yield one token after the other."""
        self.calls.append(call)
        self.running += 1
        self.widest = max(self.widest, self.running)
        ids = list(call.ids)
        try:
            for _ in range(call.max_tokens):
                for _ in range(self._delays.randrange(5) if self._delays is not None else 1):
                    await asyncio.sleep(0)
                fault = self.dies(call)
                if fault is not None:
                    raise ConnectionError(fault)
                ids.append(self.next(ids, call))
                self.tokens += 1
                yield Piece((ids[-1],), (-1.0,) if call.logprobs else (), "end" if ids[-1] == END else None)
        finally:
            self.running -= 1

    def next(self, ids: Sequence[int], call: Call) -> int:
        """Return the next token: a function of the ids, the seed and the position."""
        greedy = call.sampling.get("temperature") == 0
        drawn = 0.999 if greedy else uniform(call.seed, len(ids))
        answer = [token for token in ids if token < 1000]
        last, before = ([-1, -1, *answer][-1], [-1, -1, *answer][-2])
        done = sum(token >= NUMBER for token in answer)
        if last >= NUMBER:
            return DOT if drawn < 0.75 else DOT_LINE
        if last in (DOT, DOT_LINE):
            if done == self.steps:
                return END
            return LINE if last == DOT_LINE else (LINE, LINES, LINES_HASH)[int(drawn * 3)]
        if last == LINE and before == DOT:
            return LINE
        if not greedy and drawn < 0.4:
            return WORD
        return NUMBER + (self.best if greedy else int(uniform(call.seed, len(ids), "number") * (self.best + 1)))


class NumberReward(Reward):
    """The value of the scripted engine's answers: the mean of the numbers so far, over the largest one.

    Args:
        best: the largest number.
    """

    name = "number"

    def __init__(self, best: int = 3) -> None:
        super().__init__()
        self.best, self.calls = best, list[tuple[str, tuple[str, ...]]]()

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score the steps; one without a number has the worst one."""
        self.calls.append((prompt, tuple(steps)))
        found = [int(re.sub(r"\D", "", step) or 0) / self.best for step in steps]
        return [sum(found[: i + 1]) / (i + 1) for i in range(len(found))]


def value(text: str, best: int = 3) -> float:
    """Return the value of a whole answer's text."""
    numbers = [int(number) for number in re.findall(r" (\d+)", text)]
    return sum(numbers) / (best * len(numbers)) if numbers else 0.0
