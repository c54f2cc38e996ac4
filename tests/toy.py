"""What the core's tests share: throw-away plugins, and a pipeline driven by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import midstep
from midstep.methods import Method
from midstep.plugins import forget, pm

VOCABULARY = 61


@contextmanager
def installed(**hooks: Sequence[type[Method]]) -> Iterator[None]:
    """Install a throw-away plugin that offers classes by hook name."""
    plugin = SimpleNamespace(**{name: midstep.hookimpl(_offer(classes)) for name, classes in hooks.items()})
    pm.register(plugin, name="throw-away")
    forget()
    try:
        yield
    finally:
        pm.unregister(plugin)
        forget()


def _offer(classes: Sequence[type[Method]]) -> Any:
    return lambda: list(classes)


def admission(
    key: str = "a",
    sampling: midstep.Sampling | None = None,
    seed: int = 1,
    prompt: Sequence[int] = (3, 4, 5),
    **more: Any,
) -> midstep.Admission:
    """Admit one request; `more` are methods, and midstep's own settings."""
    asked = midstep.parse(midstep.request(**{"trace": True, **more}))
    assert asked is not None
    model = midstep.Model(vocabulary=VOCABULARY, ends=(2,))
    found = midstep.admit(asked, prompt, sampling or midstep.Sampling(), model, seed=seed)
    assert found is not None
    return replace(found.stamped(key), trace=more.get("trace", False))


def rows(count: int, seed: int = 0, vocabulary: int = VOCABULARY) -> Tensor:
    """Return logits [count, vocabulary] float32."""
    return torch.randn(count, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def call(
    pipeline: midstep.Pipeline,
    admissions: Sequence[midstep.Admission],
    logits: Tensor,
    position: int | Sequence[int] = 0,
) -> tuple[list[int], dict[str, Any]]:
    """Run one call; return the drawn tokens and the events by key."""
    at = torch.tensor([position] * len(admissions) if isinstance(position, int) else list(position))
    record = pipeline.run(logits, admissions, range(len(admissions)), at)
    return logits.argmax(-1).tolist(), {event.key: event for event in record.events()}
