"""What the rows of a call have in common, worked out once and kept until a row changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .admission import ORDER, Admission
from .methods import LogitsProcessor, Method, Sampler, StopController
from .rows import columns
from .slots import Name, Slots, upload


@dataclass(frozen=True)
class Group:
    """The rows of a call that use one method.

    Args:
        members: which of the call's R rows, [r] int64; None stands for all of them.
        sequences: the method has prepared sequences.
        base: [r] int64, where they begin among those of its request, and `count`: how many they are.
        ids: the names of its prepared token ids.
        index: of the method among the call's names.
    """

    name: str
    method: Method
    members: Tensor | None
    params: Any
    sequences: bool
    base: Tensor
    count: Tensor
    ids: tuple[str, ...]
    index: int

    def of(self, value: Tensor) -> Tensor:
        """Return the group's part of a tensor over the call's rows."""
        return value if self.members is None else value.index_select(0, self.members)

    def put(self, target: Tensor, value: Tensor) -> Tensor:
        """Return `target` with the group's rows replaced by `value`."""
        return value if self.members is None else target.index_copy(0, self.members, value)


@dataclass(frozen=True)
class Batch:
    """One call's rows: their slots, their groups in the pipeline's order, their own sampling parameters as columns."""

    admissions: tuple[Admission, ...]
    rows: Tensor
    slots: Tensor
    seed: Tensor
    stops_on_error: Tensor
    groups: tuple[Group, ...]
    sampling: Mapping[str, Tensor]
    sampled: Tensor
    random: bool  # some row is sampled
    warm: bool  # some row has a temperature other than 0 and 1
    names: tuple[str, ...]
    penalised: bool
    cut: bool
    forced: Tensor | None  # which of the R rows have prepared sequences
    traced: bool
    room: int  # ids in the longest history at most


def build(
    admissions: Sequence[Admission],
    rows: Sequence[int],
    slots: Sequence[int],
    table: Slots,
    methods: Mapping[str, Method],
    max_length: int,
) -> Batch:
    """Work out a Batch; `table` holds the requests' numbers."""
    device = table.device
    slot = upload(slots, torch.int64, device)
    users: dict[tuple[int, int, str], list[int]] = defaultdict(list)
    for r, admission in enumerate(admissions):
        for kind, rank, name in places(admission, methods):
            users[kind, rank, name].append(r)
    names = tuple(dict.fromkeys(name for _, _, name in sorted(users)))
    forced = [r for r, admission in enumerate(admissions) if any(use.sequences for use in admission.uses)]
    sampling = {name: table.read(("", name), slot) for name in SAMPLING}
    return Batch(
        admissions=tuple(admissions),
        rows=upload(rows, torch.int64, device),
        slots=slot,
        seed=table.read(("", "seed_high"), slot) << 32 | table.read(("", "seed_low"), slot),
        stops_on_error=table.read(("", "stops_on_error"), slot),
        groups=tuple(
            _group(name, methods[name], users[kind, rank, name], admissions, slots, table, names.index(name))
            for kind, rank, name in sorted(users)
        ),
        sampling=sampling,
        sampled=sampling["temperature"] > 0,
        random=any(a.sampling.temperature > 0 for a in admissions),
        warm=any(a.sampling.temperature not in (0.0, 1.0) for a in admissions),
        names=names,
        penalised=any(a.sampling.penalises() for a in admissions),
        cut=any(a.sampling.cuts() for a in admissions),
        forced=upload(forced, torch.int64, device) if forced else None,
        traced=any(a.trace for a in admissions),
        room=max(room(a, max_length) for a in admissions),
    )


def room(admission: Admission, max_length: int) -> int:
    """Return how many ids a request's history may come to hold."""
    if admission.max_tokens is None:
        return max_length
    return min(max_length, len(admission.prompt) + admission.max_tokens)


SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
)


def _kind(method: Method) -> int:
    if isinstance(method, Sampler):
        return len(ORDER) + (0 if method.keeps() else 1)
    return ORDER.index(StopController if isinstance(method, StopController) else LogitsProcessor)


def places(admission: Admission, methods: Mapping[str, Method]) -> list[tuple[int, int, str]]:
    """Return (kind, rank, name) of each method of a request.

    Requests in the usual order, by name, share their groups (rank -1); one that asks for another order has its own.
    """
    kinds = [_kind(methods[use.name]) for use in admission.uses]
    found = []
    for kind in set(kinds):
        names = [use.name for use, k in zip(admission.uses, kinds, strict=True) if k == kind]
        usual = names == sorted(names)
        found += [(kind, -1 if usual else rank, name) for rank, name in enumerate(names)]
    return found


def _group(
    name: str,
    method: Method,
    users: list[int],
    admissions: Sequence[Admission],
    slots: Sequence[int],
    table: Slots,
    index: int,
) -> Group:
    used = [next(use for use in admissions[r].uses if use.name == name) for r in users]
    mine = upload([slots[r] for r in users], torch.int64, table.device)
    found: dict[Name, None] = {(name, column): None for use in used for column in use.columns}
    return Group(
        name=name,
        method=method,
        members=None if len(users) == len(admissions) else upload(users, torch.int64, table.device),
        params=columns({column: table.read((owner, column), mine) for owner, column in found}),
        sequences=any(use.sequences for use in used),
        base=table.read((name, "sequences from"), mine),
        count=table.read((name, "sequences"), mine),
        ids=tuple(sorted({short for use in used for short in use.ids})),
        index=index,
    )
