"""The laws of the methods that run beside the engine: rewards, selectors and searches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from hashlib import blake2b

from ..beside import Candidate, Continuation, Reward, Search, Selector
from ..methods import Params

STEPS = ("First, add 2 and 3.", "That gives 5.", "The answer is 5.")


class ScriptedEngine:
    """An engine whose continuations are a function of prefix and seed, and that counts its tokens."""

    def __init__(self) -> None:
        self.tokens = 0

    async def extend(
        self, prefix: Sequence[int], *, seed: int, max_tokens: int, until: Sequence[str] = ()
    ) -> Continuation:
        """Continue `prefix` by at most three tokens; an answer ends after twelve."""
        digest = blake2b(repr((tuple(prefix), seed)).encode(), digest_size=8).digest()
        ids = tuple(byte % 50 for byte in digest[: min(3, max_tokens)])
        self.tokens += len(ids)
        return Continuation(ids, " ".join(map(str, ids)) + "\n", len(prefix) + len(ids) >= 12)


class LengthReward(Reward):
    """A reward for the scripted engine: the share of even digits."""

    name = "length"

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score each step."""
        return [sum(c in "02468" for c in step) / max(len(step), 1) for step in steps]


def check_reward(method: type[Reward]) -> None:
    """Laws: one finite score per step, the same each time, and none for no steps."""

    async def both() -> tuple[list[float], list[float], list[float]]:
        reward = method()
        return (
            await reward.score("What is 2 + 3?", STEPS),
            await reward.score("What is 2 + 3?", STEPS),
            await reward.score("?", []),
        )

    first, second, none = asyncio.run(both())
    assert len(first) == len(STEPS), f"{method.name}: {len(first)} scores for {len(STEPS)} steps"
    assert all(isinstance(s, float) and math.isfinite(s) for s in first), (
        f"{method.name}: scores {first} are not finite floats"
    )
    assert first == second, f"{method.name}: the same steps were scored {first} and then {second}"
    assert none == [], f"{method.name}: no steps were scored {none}"


def check_selector(method: type[Selector]) -> None:
    """Laws: one finite weight >= 0 per candidate, whatever their order, and none for no candidates."""
    candidates = [
        Candidate("The answer is 5.", (0.5, 0.75), -3.0),
        Candidate("It is 6.", (0.25, 0.125), -4.0),
        Candidate("5", (0.9, 0.5), -1.0),
    ]
    weights = method().weigh(candidates)
    assert len(weights) == len(candidates), f"{method.name}: {len(weights)} weights for {len(candidates)} candidates"
    assert all(math.isfinite(w) and w >= 0 for w in weights), (
        f"{method.name}: weights {weights} are not finite and >= 0"
    )
    assert method().weigh(candidates[::-1]) == weights[::-1], (
        f"{method.name}: weights depend on the order of the candidates"
    )
    assert method().weigh([]) == [], f"{method.name}: no candidates were weighed {method().weigh([])}"


def check_search(method: type[Search], params: Params) -> None:
    """Laws: deterministic under a seed, every token accounted for, one weight >= 0 per candidate."""
    results = []
    for _ in range(2):
        engine = ScriptedEngine()
        result = asyncio.run(method().run(engine, (1, 2, 3), LengthReward(), 7, params))
        assert result.tokens == engine.tokens, (
            f"{method.name}: reports {result.tokens} tokens, the engine gave {engine.tokens}"
        )
        assert len(result.weights) == len(result.candidates) > 0, f"{method.name}: {len(result.weights)} weights"
        assert all(math.isfinite(w) and w >= 0 for w in result.weights), f"{method.name}: weights {result.weights}"
        results.append(result)
    assert results[0] == results[1], f"{method.name}: one seed gave two results"
