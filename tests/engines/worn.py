"""Requests whose companions wear LoRA adapters, and the ids of midstep-eager with the adapters merged in.

`python -m engines.worn MODEL` makes what `made` returns, for those who cannot load a network.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines import adapters, kept, scenario
from engines.guided import FEW
from engines.scenario import CODE, LIST, STORY

import midstep

FIRST, SECOND = "math", "prose"
ADAPTERS = (FIRST, SECOND)
EXPERT, ANTI = f"lora:{FIRST}", f"lora:{SECOND}"
HOT = {"temperature": 1.1}
SOURCES = [Path(__file__), Path(adapters.__file__), Path(adapters.train.__file__)]
STEPS = 20  # of training: enough to change what the model says


@dataclass(frozen=True)
class Worn:
    """One request; `wears` is its own adapter."""

    name: str
    prompt: str
    methods: Mapping[str, Mapping[str, Any]]
    wears: str | None = None
    temperature: float = 0.0
    seed: int | None = None
    max_tokens: int = 40
    rules: Mapping[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """Return midstep's entry, or nothing for a plain request."""
        return dict(midstep.request(**self.methods, **self.rules)) if self.methods else {}


CASES: tuple[Worn, ...] = (
    Worn("proxy tuning", STORY, {"proxy_tuning": {"expert": EXPERT, "anti": "base"}}),
    Worn("proxy tuning, a triple", LIST, {"proxy_tuning": {"expert": EXPERT, "anti": ANTI}}, **HOT, seed=80),
    Worn("an expert that is the base", LIST, {"proxy_tuning": {"expert": "base", "anti": ANTI}}, wears=FIRST),
    Worn("dexperts", CODE, {"dexperts": {"expert": EXPERT, "anti": ANTI}}, **HOT, seed=81),
    Worn("contrastive", STORY, {"contrastive": {"amateur": "base"}}, wears=FIRST),
    Worn("contrastive, sampled", LIST, {"contrastive": {"amateur": ANTI}}, **HOT, seed=82),
    Worn("nudging", STORY, {"nudging": {"nudger": EXPERT, "threshold": 0.4}}),
    Worn("nudging, sampled", LIST, {"nudging": {"nudger": EXPERT, "threshold": 0.3}}, **HOT, seed=83),
    Worn("guided as it is dressed", STORY, {"cfg": {"scale": 1.5, "negative": FEW}}, wears=SECOND),
    Worn("a keep rule, dressed", LIST, {"min_p": {"p": 0.1}}, wears=FIRST, **HOT, seed=84),
    Worn("a keep rule, bare", LIST, {"min_p": {"p": 0.1}}, **HOT, seed=84),
)


def folders(folder: str | Path) -> dict[str, Path]:
    """Return where the adapters lie."""
    return {name: Path(folder) / name for name in ADAPTERS}


def paths(folder: str) -> list[str]:
    """Return the adapters as SGLang's --lora-paths has them."""
    return [f"{name}={place}" for name, place in folders(folder).items()]


def made(model: str) -> tuple[Path, dict[str, list[int]]]:
    """Return the adapters' folder, and midstep-eager's ids by case; both are made once and kept."""
    return kept.once("worn", model, SOURCES, lambda folder: answers(model, folder))


def answers(model: str, folder: Path) -> dict[str, list[int]]:
    """Make the adapters, one trained and one of random weights, and return midstep-eager's ids by case."""
    import midstep_eager

    network, tokenizer = scenario.load(model)
    places = folders(folder)
    train = adapters.train
    train.save(train.train(copy.deepcopy(network), tokenizer, steps=STEPS), places[FIRST])
    adapters.make(network, places[SECOND])
    networks = {name: adapters.merged(network, place) for name, place in places.items()}
    found = {}
    for case in CASES:
        own = midstep_eager.Options(
            max_tokens=case.max_tokens,
            seed=case.seed,
            ignore_eos=True,
            sampling=midstep.Sampling(temperature=case.temperature),
        )
        prompt = tokenizer(case.prompt).input_ids
        (answer,) = midstep_eager.generate(
            network, tokenizer, prompt, own, extra=case.entry(), adapters=networks, adapter=case.wears
        )
        found[case.name] = answer.ids
    return found


if __name__ == "__main__":
    made(sys.argv[1])
