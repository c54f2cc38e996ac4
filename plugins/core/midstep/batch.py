"""What the rows of a call have in common, worked out once and kept until a row changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .admission import ORDER, Admission
from .companions import Shadow, paired
from .methods import LogitsProcessor, Method, Sampler, StopController
from .rows import columns
from .slots import Name, Slots, upload

MISSING, UNASKED = -1, -2

Place = tuple[int, int, str]  # the kind, the rank in the request's own order, the name


@dataclass(frozen=True)
class Group:
    """The rows of a call that use one method.

    Args:
        members: which of the call's R rows, [r] int64; None stands for all of them.
        total: R.
        sequences: the method has prepared sequences.
        base: [r] int64, where they begin among those of its request, and `count`: how many they are.
        ids: the names of its prepared token ids.
        index: of the method among the call's names.
        companions: by name, where each row's companion is among the call's, [r] int64; MISSING where it is not there,
            UNASKED where the request has none of that name.
        last: its rows are drawn from what it leaves: no logits processor, sampler, top-k, top-p or min-p comes after.
    """

    name: str
    method: Method
    members: Tensor | None
    total: int
    params: Any
    sequences: bool
    base: Tensor
    count: Tensor
    ids: tuple[str, ...]
    index: int
    companions: Mapping[str, Tensor]
    last: bool

    @cached_property
    def within(self) -> Tensor:
        """Return where each of the R rows is among the group's, [R] int64; -1 where it is not."""
        own = torch.arange(len(self.base), device=self.base.device)
        if self.members is None:
            return own
        return own.new_full((self.total,), -1).index_copy_(0, self.members, own)

    def of(self, value: Tensor) -> Tensor:
        """Return the group's part of a tensor over the call's rows."""
        return value if self.members is None else value.index_select(0, self.members)

    def put(self, target: Tensor, value: Tensor) -> Tensor:
        """Return `target` with the group's rows replaced by `value`."""
        return value if self.members is None else target.index_copy(0, self.members, value)


@dataclass(frozen=True)
class Beside:
    """The companions' rows of a call, C of them, whose main requests are there too.

    Args:
        entries: [C] int64, their places among the call's entries; `mains`: [R], those of the main requests.
        rows: [C] int64, their rows in the engine's logits.
        of: [C] int64, which of the R main rows each belongs to.
    """

    entries: Tensor
    mains: Tensor
    rows: Tensor
    of: Tensor


@dataclass(frozen=True)
class Batch:
    """One call's rows: their slots, their groups in the pipeline's order, their own sampling parameters as columns."""

    admissions: tuple[Admission, ...]
    rows: Tensor
    slots: Tensor
    seed: Tensor
    stops_on_error: Tensor
    ends: Tensor  # [R] int64, an end token of the request, or -1
    first: Tensor  # [R] int64, 1 + the index of the row's first method
    keeper: Tensor  # [R] int64, that of its first one with a state or a history; 0 for none
    targets: Tensor  # [R + C] int64, the engine's rows that get a token: its own, and those of companions
    sources: Tensor  # [R + C] int64, whose token each of them gets
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
    beside: Beside | None  # None where the call has no companion's row, lone ones included

    @cached_property
    def zero(self) -> Tensor:
        """Return zeros [R] int64, not to be written to: made once for all calls of these rows."""
        return torch.zeros_like(self.slots)

    @cached_property
    def never(self) -> Tensor:
        """Return -1 [R] int64, not to be written to."""
        return torch.full_like(self.slots, -1)

    @cached_property
    def unchanged(self) -> Tensor:
        """Return False [R, methods], not to be written to."""
        return torch.zeros((len(self.slots), len(self.names)), dtype=torch.bool, device=self.slots.device)

    @cached_property
    def no(self) -> Tensor:
        """Return False [R], not to be written to."""
        return torch.zeros_like(self.slots, dtype=torch.bool)

    @cached_property
    def blank(self) -> Tensor:
        """Return NaN [R] float32, not to be written to."""
        return torch.full_like(self.slots, torch.nan, dtype=torch.float32)


def build(
    entries: Sequence[Admission | Shadow],
    rows: Sequence[int],
    slots: Sequence[int],
    table: Slots,
    methods: Mapping[str, Method],
    max_length: int,
) -> Batch:
    """Work out a Batch; `slots` are those of the main requests, and `table` holds their numbers."""
    device = table.device
    mains, pairs = paired(entries)
    admissions = [entry for entry in entries if isinstance(entry, Admission)]
    own, theirs = [(i, r) for r, i in enumerate(mains)], [(i, r) for i, r, _ in pairs]
    targets = upload([rows[i] for i, _ in own + theirs], torch.int64, device)
    sources = upload([r for _, r in own + theirs], torch.int64, device)
    beside = None
    if len(mains) < len(entries):
        beside = Beside(
            entries=upload([i for i, _ in theirs], torch.int64, device),
            mains=upload(mains, torch.int64, device),
            rows=targets[len(own) :],
            of=sources[len(own) :],
        )
    present = {(r, name): c for c, (_, r, name) in enumerate(pairs)}
    slot = upload(slots, torch.int64, device)
    users: dict[Place, list[int]] = defaultdict(list)
    for r, admission in enumerate(admissions):
        for kind, rank, name in places(admission, methods):
            users[kind, rank, name].append(r)
    names = tuple(dict.fromkeys(name for _, _, name in sorted(users)))
    forced = [r for r, admission in enumerate(admissions) if any(use.sequences for use in admission.uses)]
    sampling = {name: table.read(("", name), slot) for name in SAMPLING}
    firsts = upload(_firsts(users, names, methods, len(own)) or [[0, 0]], torch.int64, device)
    return Batch(
        admissions=tuple(admissions),
        rows=targets[: len(own)],
        slots=slot,
        seed=table.read(("", "seed_high"), slot) << 32 | table.read(("", "seed_low"), slot),
        stops_on_error=table.read(("", "stops_on_error"), slot),
        ends=table.read(("", "end token"), slot),
        first=firsts[:, 0].contiguous(),
        keeper=firsts[:, 1].contiguous(),
        targets=targets,
        sources=sources,
        groups=tuple(
            _group(
                name, methods[name], users[kind, rank, name], admissions, slots, table, names.index(name), present, last
            )
            for (kind, rank, name), last in _last(users, admissions).items()
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
        room=max((room(a, max_length) for a in admissions), default=0),
        beside=beside,
    )


def _firsts(
    users: Mapping[Place, Sequence[int]], names: Sequence[str], methods: Mapping[str, Method], rows: int
) -> list[list[int]]:
    """Return of each row 1 + the index of its first method, and of its first one that needs its memory; 0 for none."""
    found = [[0, 0] for _ in range(rows)]
    for place in sorted(users):
        name = place[2]
        remembers = bool(methods[name].state) or methods[name].history
        for r in users[place]:
            found[r][0] = found[r][0] or 1 + names.index(name)
            if remembers:
                found[r][1] = found[r][1] or 1 + names.index(name)
    return found


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


def _last(users: Mapping[Place, Sequence[int]], admissions: Sequence[Admission]) -> dict[Place, bool]:
    """Return the places in their order, and of each whether its rows are drawn from what it leaves."""
    taken = {r for r, admission in enumerate(admissions) if admission.sampling.cuts()}
    found: dict[Place, bool] = {}
    for place in sorted(users, reverse=True):
        found[place] = taken.isdisjoint(users[place])
        taken.update(users[place])
    return dict(reversed(found.items()))


def _group(
    name: str,
    method: Method,
    users: list[int],
    admissions: Sequence[Admission],
    slots: Sequence[int],
    table: Slots,
    index: int,
    present: Mapping[tuple[int, str], int],
    last: bool,
) -> Group:
    used = [next(use for use in admissions[r].uses if use.name == name) for r in users]
    mine = upload([slots[r] for r in users], torch.int64, table.device)
    found: dict[Name, None] = {(name, column): None for use in used for column in use.columns}
    return Group(
        name=name,
        method=method,
        members=None if len(users) == len(admissions) else upload(users, torch.int64, table.device),
        total=len(admissions),
        params=columns({column: table.read((owner, column), mine) for owner, column in found}),
        sequences=any(use.sequences for use in used),
        base=table.read((name, "sequences from"), mine),
        count=table.read((name, "sequences"), mine),
        ids=tuple(sorted({short for use in used for short in use.ids})),
        index=index,
        companions={
            short: upload(
                [
                    present.get((r, f"{name}.{short}"), MISSING if short in one.companions else UNASKED)
                    for r, one in zip(users, used, strict=True)
                ],
                torch.int64,
                table.device,
            )
            for short in sorted({short for one in used for short in one.companions})
        },
        last=last,
    )
