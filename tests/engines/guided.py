"""The guided requests that every engine answers: each has companions, and the ids of midstep-eager are exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines import kept, scenario
from engines.scenario import CODE, LIST, LONG, STORY, Case

import midstep
from midstep.requests import TOKEN_KINDS

GREEDY = {"temperature": 0.0}
HOT = {"temperature": 1.1}
MESSAGES = [{"role": "system", "content": "You are rude."}, {"role": "user", "content": "Say no."}]
FEW, MANY = [5, 6, 7], list(range(40, 90))


def _case(name: str, prompt: str, cfg: Mapping[str, Any], **more: Any) -> Case:
    sampling = {**GREEDY, **{key: more.pop(key) for key in list(more) if key in KNOBS}}
    methods = {"cfg": dict(cfg), **more.pop("beside", {})}
    return Case(name, prompt, methods, sampling, **more)


KNOBS = ("temperature", "top_p", "top_k", "min_tokens", "frequency_penalty", "repetition_penalty", "presence_penalty")

CASES: tuple[Case, ...] = (
    _case("ids, greedy", STORY, {"scale": 1.5, "negative": FEW}, max_tokens=48),
    _case("text, greedy", LIST, {"scale": 2.0, "negative": "Letters: a, b, c"}, max_tokens=40),
    _case("messages in a chat", "Name three colours.", {"scale": 1.5, "negative": MESSAGES}, chat=True, max_tokens=40),
    _case("the prompt's last token", CODE, {"scale": 1.3}, max_tokens=40),
    _case("ids, sampled", STORY, {"scale": 1.5, "negative": FEW}, **HOT, seed=60, max_tokens=48),
    _case("a longer companion", LIST, {"scale": 1.7, "negative": MANY}, **HOT, seed=61, max_tokens=40),
    _case("a long prompt, a longer companion", LONG, {"scale": 1.5, "negative": LONG + LIST}, max_tokens=40),
    _case("a long prompt, sampled", LONG, {"scale": 2.5, "negative": FEW}, **HOT, seed=62, max_tokens=40),
    _case("two companions", STORY, {"scale": 1.5, "negative": FEW, "negatives": [LIST]}, **HOT, seed=63, max_tokens=40),
    _case("scale 0", STORY, {"scale": 0.0, "negative": LIST}, max_tokens=16),
    _case("scale 1", STORY, {"scale": 1.0, "negative": LIST}, **HOT, seed=64, max_tokens=40),
    Case("unguided", STORY, {"min_p": {"p": 0.0}}, HOT, seed=64, max_tokens=40),
    _case("twice", STORY, {"scale": 1.5, "negative": FEW}, **HOT, seed=65, n=2, max_tokens=24),
    _case("streamed", LIST, {"scale": 1.5, "negative": MANY}, **HOT, seed=66, stream=True, max_tokens=24),
    _case("twice, streamed", CODE, {"scale": 1.5, "negative": FEW}, **HOT, seed=67, n=2, stream=True, max_tokens=16),
    _case("a stop string", CODE, {"scale": 1.5, "negative": FEW}, **HOT, seed=68, stop=("\n", "#"), max_tokens=40),
    _case("min_tokens", STORY, {"negative": FEW}, **HOT, seed=69, min_tokens=12, ignore_eos=False, max_tokens=40),
    _case("a penalty", LIST, {"negative": FEW}, frequency_penalty=0.7, repetition_penalty=1.2, max_tokens=40),
    _case("a bias", LIST, {"negative": FEW}, **HOT, seed=70, bias={198: 3.0, 30: -100.0}, max_tokens=24),
    _case(
        "a grammar", LIST, {"negative": FEW}, **HOT, seed=71, regex=r"[a-z ]{8,30}\.", ignore_eos=False, max_tokens=40
    ),
    _case("top-k and top-p", STORY, {"negative": FEW}, **HOT, seed=72, top_k=20, top_p=0.9, max_tokens=24),
    _case(
        "a keep rule and a stop",
        STORY,
        {"negative": FEW},
        beside={"min_p": {"p": 0.05}, "deepconf": {"threshold": 3.5, "window": 5, "k": 5}},
        **HOT,
        seed=73,
        max_tokens=40,
    ),
    _case("forced ids", LIST, {"negative": FEW}, beside={"force": {"at": 3, "ids": [84, 85, 86]}}, max_tokens=12),
    Case("m3id", STORY, {"m3id": {"without": " upon a time", "decay": 0.1, "threshold": 0.9}}, GREEDY, max_tokens=40),
    Case("m3id, a mask", LIST, {"m3id": {"without": "Numbers: ", "mode": "mask"}}, HOT, seed=74, max_tokens=24),
    Case("cad", LIST, {"cad": {"without": " two,", "alpha": 1.0}}, GREEDY, max_tokens=24),
    Case("preadd", STORY, {"preadd": {"prefix": "Sadly,", "scale": -0.5}}, HOT, seed=75, max_tokens=24),
    Case(
        "two methods in their order",
        STORY,
        {"m3id": {"without": " a time", "decay": 0.1}, "cfg": {"scale": 1.4, "negative": FEW}},
        HOT,
        seed=76,
        max_tokens=24,
        extra={"order": ["m3id", "cfg"]},
    ),
    Case("a plain neighbour", LIST, None, GREEDY, max_tokens=40),
)

METHODS = ("cfg", "cad", "preadd", "m3id")  # those with companions

# Sixteen rows, companions and samples counted: every method that needs no adapter is in one of them.
MIXED_ROWS = 16
MIXED = (
    "a chain of keep rules",
    "epsilon and eta",
    "all kinds at once",
    "p_less",
    "edt",
    "repetition",
    "a thought's maximum",
    "a keep rule and a stop",
    "m3id",
    "cad",
    "preadd",
)
ADAPTERS = {"proxy_tuning", "contrastive", "dexperts", "nudging"}  # what needs one


def is_guided(case: Case) -> bool:
    """Say whether a case has companions."""
    return any(method in METHODS for method in case.methods or {})


def mixed() -> tuple[Case, ...]:
    """Return the cases of the mixed batch."""
    return tuple(case for case in (*scenario.CASES, *CASES) if case.name in MIXED)


def unmixed() -> set[str]:
    """Return the methods of this repository that steer tokens and that the mixed batch lacks."""
    installed = (cls for cls in midstep.catalogue().methods.values() if issubclass(cls, TOKEN_KINDS))
    ours = {cls.name for cls in installed if cls.__module__.partition(".")[0] in kept.METHODS}
    return ours - ADAPTERS - {name for case in mixed() for name in case.methods or {}}
