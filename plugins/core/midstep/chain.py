"""Which rows of a call may go through the fused kernels, and what they need there."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .batch import Batch, Group
from .methods import LogitsProcessor, Method, Sampler
from .operation import named
from .plugins import catalogue
from .sampling import cut_numbers
from .slots import upload


@dataclass(frozen=True)
class Chain:
    """The threshold rules of a batch, all installed ones in their order, of which each row uses some, and its own cuts.

    Args:
        rules: Triton functions.
        columns: [R, rules, 2] float32.
        uses: [R, rules] bool.
        cuts: [R, 3] float32, top-k, top-p and log min-p.
        names: [rules] int64, the index of each rule's method among the batch's; -1 where no row uses it.
    """

    rules: tuple[Any, ...]
    columns: Tensor
    uses: Tensor
    cuts: Tensor
    names: Tensor
    rooms: dict[int, Any] = field(default_factory=dict)

    def room(self, vocabulary: int) -> Any:
        """Return where the kernels leave what they find: the same place at each call of the batch."""
        from .listing import room

        if vocabulary not in self.rooms:
            self.rooms[vocabulary] = room(len(self.uses), vocabulary, len(self.rules), self.uses.device)
        return self.rooms[vocabulary]


def chain(batch: Batch) -> Chain | None:
    """Return the batch's chain.

    None where some row needs more than threshold rules in their usual order, its own cuts and a draw, or none of them
    more than a draw.
    """
    if batch.traced:
        return None
    groups = [group for group in batch.groups if isinstance(group.method, Sampler)]
    names, rules = installed()
    if not (groups or batch.cut) or len({group.name for group in groups}) < len(groups):
        return None
    if any(group.name not in names or type(group.method) is not catalogue().find(group.name) for group in groups):
        return None
    if [group.name for group in groups] != sorted(group.name for group in groups):
        return None
    columns = torch.zeros(len(batch.admissions), len(rules), 2, device=batch.slots.device)
    uses = torch.zeros(len(batch.admissions), len(rules), dtype=torch.bool, device=batch.slots.device)
    for group in groups:
        assert isinstance(group.method, Sampler)
        at = names.index(group.name)
        for i, column in enumerate(group.method.columns(group.params)):
            columns[:, at, i] = group.put(columns[:, at, i], column.float())
        uses[:, at] = group.put(uses[:, at], torch.ones_like(group.of(uses[:, at])))
    cuts = cut_numbers(*(batch.sampling[name] for name in ("top_k", "top_p", "min_p")))
    index = {group.name: group.index for group in groups}
    used = upload([index.get(name, -1) for name in names], torch.int64, batch.slots.device)
    return Chain(rules, columns, uses, cuts, used)


def drawn_first(groups: Sequence[Group], fused: bool) -> bool:
    """Say whether the draw from all of a row is needed before any method runs: to see which method changes it."""
    kinds = LogitsProcessor if fused else LogitsProcessor | Sampler
    return any(isinstance(group.method, kinds) for group in groups)


@functools.cache
def installed() -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the names and the Triton functions of all installed threshold rules, by name."""
    found = {name: _rule(method) for name, method in catalogue().methods.items() if ":" not in name}
    named = sorted((name, rule) for name, rule in found.items() if rule is not None)
    return tuple(name for name, _ in named), tuple(rule for _, rule in named)


def _rule(method: type[Method]) -> Any:
    if not issubclass(method, Sampler) or method.rule is None or method.on != "tempered":
        return None
    return named(method.rule)
