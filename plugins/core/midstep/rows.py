"""What a method sees of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor


class Ragged(NamedTuple):
    """Token ids of different lengths: `ids` [R, L] int64, filled with -1 beyond `lengths` [R] int64."""

    ids: Tensor
    lengths: Tensor


def no_history() -> Ragged:
    """Stand for the history of a method that did not ask for it."""
    raise RuntimeError("rows.history() needs `history = True` on the method's class")


def no_sequences() -> Tensor:
    """Stand for the forced sequences of a method that prepared none."""
    raise RuntimeError("rows.began() needs sequences in what prepare() returns")


@dataclass
class Rows:
    """The R rows of one call that asked for one method; row r of everything is one request.

    Args:
        params: the parameters and prepared columns by name, each [R] (`rows.params.p`).
        position: [R] int64, how many tokens the request has generated; 0 at the first.
        seed: [R] int64, the request's noise seed.
        sampled: [R] bool, False at temperature 0.
        state: name -> [R, ...], as it was before this position. The only part that a method writes: what it
            assigns here is found here at the next position.
        companions: name -> [R, V] float32, the companions' logits; of a row that has none of that name, its own.
        ids: name -> the prepared token ids.
        began: returns the action whose sequence began at the position before, [R] int64; CONTINUE where none did. So a
            stop that stands by learns whether its sequence was forced.
        history: returns prompt and generated ids.
    """

    params: Any
    position: Tensor
    seed: Tensor
    sampled: Tensor
    state: dict[str, Tensor] = field(default_factory=dict)
    companions: Mapping[str, Tensor] = field(default_factory=dict)
    ids: Mapping[str, Ragged] = field(default_factory=dict)
    began: Callable[[], Tensor] = no_sequences
    history: Callable[[], Ragged] = no_history


def columns(values: Mapping[str, Tensor]) -> SimpleNamespace:
    """Make `rows.params` out of columns by name."""
    return SimpleNamespace(**values)
