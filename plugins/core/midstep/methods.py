"""The kinds of method that run at each token, and what every method says about itself.

No kind inherits from another. R is the number of rows in a call, V the vocabulary; row r of everything is one request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict
from torch import Tensor

from .rows import Rows

SEAM = 1

CONTINUE, END, FORCE = 0, 1, 2
# Of a parameter that no request to a server may set: Field(..., json_schema_extra=OPERATOR).
OPERATOR: JsonDict = {"operator": True}
OWN, BASE, LORA = "own", "base", "lora:"  # what a companion wears; LORA is followed by the adapter's name


class Params(BaseModel):
    """What one request may set of a method. Numbers, booleans and choices reach the method as columns of shape [R]."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Column:
    """What a method remembers of each request.

    Args:
        dtype: of the column.
        shape: of one request's value; a name stands for that parameter's value.
        init: the value before the first token; a name stands for that parameter's value.
    """

    dtype: torch.dtype
    shape: tuple[int | str, ...] = ()
    init: float | str = 0.0


@dataclass(frozen=True)
class Model:
    """What `prepare` may know of the served model, and of what this request wears.

    Args:
        tokenizer: Hugging Face's, None where there is none.
        ends: the token ids that end this request.
        max_length: tokens of a prompt and its answer.
        adapter: the LoRA adapter that this request wears; None: the base.
        adapters: the names of those that are loaded.
    """

    vocabulary: int
    tokenizer: Any = None
    ends: tuple[int, ...] = ()
    max_length: int | None = None
    adapter: str | None = None
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Companion:
    """A second request that gives the first one logits.

    Args:
        prompt: its token ids.
        wears: "own": the adapter that the first one wears, or none as it does; "base": none; "lora:NAME": that one.
    """

    prompt: tuple[int, ...]
    wears: str = OWN

    @property
    def adapter(self) -> str | None:
        """Return the name of the adapter that it names, or None."""
        return self.wears.removeprefix(LORA) if self.wears.startswith(LORA) else None


@dataclass(frozen=True)
class Prepared:
    """What a method worked out about one request when it was admitted.

    Args:
        columns: numbers, seen as [R] beside the parameters.
        ids: token ids, seen as [R, L] and lengths [R].
        sequences: token ids that a stop may force, in the order of their names: action `FORCE + i`.
        companions: other prompts, whose logits are seen as [R, V].
    """

    columns: Mapping[str, float] = field(default_factory=dict)
    ids: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sequences: Mapping[str, Sequence[int]] = field(default_factory=dict)
    companions: Mapping[str, Companion] = field(default_factory=dict)


class Method(ABC):
    """What every kind has in common: a name, parameters, memory, and a look at each request when it is admitted."""

    name: ClassVar[str]
    Params: ClassVar[type[Params]] = Params
    state: ClassVar[Mapping[str, Column]] = {}
    history: ClassVar[bool] = False  # True: the method calls rows.history()

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: Model) -> Prepared:
        """Work out what this request needs, once, on the host.

        Raises:
            ValueError: the request cannot be served; its text reaches the user.
        """
        return Prepared()


class LogitsProcessor(Method):
    """Reshapes the distribution."""

    @abstractmethod
    def apply(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return the new logits, [R, V] float32. A token at -inf stays there; every row keeps a finite token."""


class Sampler(Method):
    """Says which tokens may stay (`keep`; any number of them in a request), or chooses one (`sample`; at most one)."""

    on: ClassVar[Literal["tempered", "untempered"]] = "tempered"
    # "module:function" of a keep rule that is a threshold (`midstep.threshold`): on a GPU, such rules run fused.
    rule: ClassVar[str | None] = None

    def columns(self, params: Any) -> tuple[Tensor, ...]:
        """Return what the threshold rule gets of a request's parameters: one or two columns [R]."""
        raise NotImplementedError

    def keep(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return which tokens may stay, [R, V] bool; at least one of every row's finite tokens."""
        raise NotImplementedError

    def sample(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return the chosen token ids, [R] int64, none of them at -inf."""
        raise NotImplementedError

    @classmethod
    def keeps(cls) -> bool:
        """Say whether this is a keep rule."""
        return cls.keep is not Sampler.keep


@dataclass(frozen=True)
class Decision:
    """What a stop says of each row.

    Args:
        action: [R] int64, CONTINUE, END, or FORCE + i.
        value: [R] float32, what it measured.
        threshold: [R] float32, what it compared that with.
        instead_of: [R] int64; where it is a token id, the sequence is forced only if the row draws that token, which
            it then replaces. -1, or None for all rows: forced in any case.
    """

    action: Tensor
    value: Tensor
    threshold: Tensor
    instead_of: Tensor | None = None


class StopController(Method):
    """Ends requests, or forces one of their prepared sequences."""

    @abstractmethod
    def decide(self, logits: Tensor, rows: Rows) -> Decision:
        """Decide before the token at `rows.position` is drawn; an ended request keeps that token as its last."""
