"""Guided requests for tests of schedules, and midstep-eager's answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import midstep
import midstep_eager

from . import scenario

TOKENS = 40


def prompt(length: int, seed: int) -> list[int]:
    """Return a prompt of `length` ordinary tokens."""
    return [17 + (i * i * 31 + seed * 101 + i * 7) % 1000 for i in range(length)]


@dataclass(frozen=True)
class Guided:
    """One request in no engine's words.

    Args:
        sampling: midstep.Sampling's fields.
        methods: what it asks of midstep.
    """

    name: str
    prompt: Sequence[int]
    methods: Mapping[str, Any] | None
    sampling: Mapping[str, float] = field(default_factory=dict)
    seed: int = 1
    bias: Mapping[int, float] = field(default_factory=dict)
    tokens: int = TOKENS

    def entry(self) -> dict[str, Any]:
        """Return midstep's entry."""
        return {} if self.methods is None else midstep.request(**self.methods)


def negative(length: int, seed: int, scale: float = 2.0) -> dict[str, Any]:
    """Ask to be guided away from another prompt."""
    return {"cfg": {"scale": scale, "negative": prompt(length, seed)}}


GREEDY = {"temperature": 0.0}
CROWD = (
    Guided("greedy", prompt(9, 1), negative(12, 2), GREEDY),
    Guided("longer negative", prompt(3, 3), negative(61, 4), GREEDY),
    Guided("shorter negative", prompt(57, 5), negative(2, 6), GREEDY),
    Guided("sampled", prompt(21, 7), negative(33, 8), {"temperature": 1.1}, seed=3),
    Guided("sampled again", prompt(21, 7), negative(33, 8), {"temperature": 1.1}, seed=3),
    Guided("cut", prompt(34, 9), negative(5, 10, 3.0), {"temperature": 1.3, "top_k": 20, "top_p": 0.9}, seed=4),
    Guided("penalised", prompt(14, 11), negative(17, 12), {**GREEDY, "repetition_penalty": 1.4}),
    Guided(
        "with other methods", prompt(26, 13), {**negative(31, 14), "min_p": {"p": 0.2}}, {"temperature": 1.2}, seed=5
    ),
    Guided(
        "two negatives",
        prompt(18, 15),
        {"cfg": {"scale": 2.5, "negatives": [prompt(7, 16), prompt(29, 17)]}},
        {"temperature": 0.9},
        seed=6,
    ),
    Guided("biased", prompt(11, 18), negative(13, 19), GREEDY, bias={40: 3.0, 41: -5.0}),
    Guided("steered", prompt(30, 20), {"min_p": {"p": 0.1}}, {"temperature": 1.2}, seed=7),
    Guided("unguided", prompt(22, 21), {**negative(44, 22, 1.0)}, GREEDY),
)


def sampling(request: Guided) -> midstep.Sampling:
    """Return the request's own parameters."""
    return midstep.Sampling(**request.sampling)  # type: ignore[arg-type]


@cache
def expected(model: str) -> dict[str, list[int]]:
    """Return the ids that midstep-eager answers the crowd with."""
    network, _ = scenario.load(model)
    found = {}
    for one in CROWD:
        options = midstep_eager.Options(
            max_tokens=one.tokens, seed=one.seed, ignore_eos=True, sampling=sampling(one), bias=one.bias
        )
        answers = midstep_eager.generate(network, None, one.prompt, options, extra=one.entry())
        found[one.name] = list(answers[0].ids)
    return found


def plain(model: str, name: str) -> list[int]:
    """Return what midstep-eager answers a request of the crowd with where nothing guides it."""
    network, _ = scenario.load(model)
    one = next(one for one in CROWD if one.name == name)
    options = midstep_eager.Options(max_tokens=one.tokens, seed=one.seed, ignore_eos=True, sampling=sampling(one))
    return list(midstep_eager.generate(network, None, one.prompt, options, extra={})[0].ids)
