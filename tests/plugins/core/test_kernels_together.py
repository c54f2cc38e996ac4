"""Every installed method in one pipeline, once as torch defines it and once with every kernel: the same story."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases import on_devices, rows_of
from toy import installed
from toy_methods import PROCESSORS, SAMPLERS, STOPS

import midstep
from midstep.methods import LogitsProcessor, Sampler, StopController
from midstep.record import Event
from midstep.testing.examples import Letters, usual

pytest.importorskip("triton", reason="Triton is not installed")

VOCABULARY, POSITIONS = 5000, 5
HEAT = (midstep.Sampling(temperature=0.8, top_p=0.95), midstep.Sampling(temperature=0.0, min_tokens=3))
MODULES = ("call", "guide", "operation", "pipeline")


def requests() -> list[Any]:
    """Return a request for each method, and for some together; main requests first, then their companions."""
    kinds = LogitsProcessor | Sampler | StopController
    found = midstep.catalogue().methods
    names = sorted(name for name, method in found.items() if ":" not in name and issubclass(method, kinds))
    asked: list[dict[str, Any]] = [{name: usual(found[name])} for name in names]
    asked += [{"min_p": {"p": 0.05}, "p_less": {}}, {"deepconf": {"threshold": 99.0, "window": 2}, "quadratic": {}}]
    model = midstep.Model(VOCABULARY, tokenizer=Letters(), ends=(2,))
    mains = []
    for i, methods in enumerate(asked):
        text = {"midstep": json.dumps({"methods": methods, "on_error": "continue"})}
        parsed = midstep.parse(text)
        assert parsed is not None
        made = midstep.admit(parsed, (3, 4, 5, 3, 4, 5), HEAT[i % 2], model, seed=i, max_tokens=40)
        assert made is not None
        mains.append(made.stamped(str(i)))
    return [*mains, *(shadow for main in mains for shadow, _ in midstep.shadows(main))]


def story(device: str) -> tuple[list[list[int]], list[list[Event]]]:
    """Run a few positions; return what was drawn, and every event."""
    entries, drawn, events = requests(), list[list[int]](), list[list[Event]]()
    made = midstep.Pipeline(device, max_length=64)
    fed = torch.full((len(entries),), -1, device=device)
    guided = next(i for i, entry in enumerate(entries) if entry.uses[0].companions)
    alone = next(i for i, entry in enumerate(entries) if entry.uses[0].name == "deepconf")
    for position in range(POSITIONS):
        logits = rows_of("plain", len(entries), VOCABULARY, "cpu") * (1 + position / 7)
        logits[:, ::17] = -torch.inf
        logits = logits.to(device)
        if position == 3:  # two requests were fed another token than was drawn, the first without its companion
            fed[[guided, alone]] = 4321
        at = torch.full((len(entries),), position, device=device)
        events.append(made.run(logits, entries, range(len(entries)), at, fed).events())
        fed = logits.argmax(-1)
        drawn.append(fed.tolist())
    return drawn, events


def alike(one: Event, other: Event) -> bool:
    """Compare events, numbers but for rounding."""
    numbers = torch.tensor([[one.value, one.threshold], [other.value, other.threshold]])
    return one._replace(value=0.0, threshold=0.0) == other._replace(value=0.0, threshold=0.0) and torch.allclose(
        numbers[0], numbers[1], rtol=1e-4, atol=1e-5, equal_nan=True
    )


@on_devices
def test_kernels_tell_the_same_story(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops, processors, samplers, guided rows and their companions in one batch: tokens, faults, ends, changes."""
    answers: dict[str, Callable[[Any], bool]] = {"torch": lambda tensor: False, "kernels": lambda tensor: True}
    told = {}
    with installed(logits_processors=PROCESSORS, samplers=SAMPLERS, reward_hooks=STOPS):
        for name, answer in answers.items():
            for module in MODULES:
                monkeypatch.setattr(importlib.import_module(f"midstep.{module}"), "uses_kernels", answer)
            told[name] = story("cpu" if name == "torch" else device)
    assert told["kernels"][0] == told["torch"][0]
    for mine, theirs in zip(told["kernels"][1], told["torch"][1], strict=True):
        assert [event.key for event in mine] == [event.key for event in theirs]
        wrong = [(a, b) for a, b in zip(mine, theirs, strict=True) if not alike(a, b)]
        assert not wrong
    every = [event for events in told["torch"][1] for event in events]
    assert {"history", "companion"} <= {event.fault for event in every}
    assert any(event.end for event in every)
    assert any(event.changed for event in every)
