"""Companions: the second requests that an engine makes of one, and which rows of a call belong together.

A companion is an ordinary request of the engine under another prompt. It is fed the tokens of its main request, and its
own output reaches nobody. A companion that is one token late gives fluent wrong text and no error: so every call
compares the positions, and a row without its companion ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .configuration import Limits
from .methods import BASE, LORA, OWN, Companion, Model, Prepared

if TYPE_CHECKING:
    from .admission import Admission, Use
    from .batch import Batch, Group


@dataclass(frozen=True)
class Shadow:
    """A companion's row, as a worker knows it.

    Args:
        key: its own.
        of: the key of its main request.
        name: the method and the companion's name there: `m3id.without`.
    """

    key: str
    of: str
    name: str


def shadows(admission: Admission) -> Iterator[tuple[Shadow, Companion]]:
    """Yield the companions of a stamped request."""
    for use in admission.uses:
        for short, companion in use.companions.items():
            name = f"{use.name}.{short}"
            yield Shadow(f"{admission.key}#{name}", admission.key, name), companion


def for_workers(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Return an admission's wire without the companions' prompts, which the engine carries itself."""
    bare = {"prompt": (), "wears": OWN}
    return {
        **wire,
        "uses": [{**use, "companions": {name: bare for name in use["companions"]}} for use in wire["uses"]],
    }


def spent(admission: Admission, generated: int) -> int:
    """Return the tokens that the companions of a request cost: their prompts, and what was generated once for each."""
    return sum(len(companion.prompt) + generated for use in admission.uses for companion in use.companions.values())


def worn_by(companion: Companion, own: str | None) -> str | None:
    """Return the name of the adapter that a companion wears, or None; `own` is its main request's."""
    return own if companion.wears == OWN else companion.adapter


def adapters(admission: Admission) -> set[str]:
    """Return the names of the adapters that a request's companions name."""
    named = (companion.adapter for use in admission.uses for companion in use.companions.values())
    return {name for name in named if name is not None}


def unknown_adapter(prepared: Prepared, model: Model) -> str | None:
    """Say that a companion wears what is not there, or None."""
    for name, companion in prepared.companions.items():
        if companion.wears not in (OWN, BASE) and not companion.wears.startswith(LORA):
            return f'its companion {name} wears {companion.wears!r}; allowed: "own", "base", "lora:NAME"'
        if companion.adapter is not None and companion.adapter not in model.adapters:
            loaded = ", ".join(map(repr, sorted(model.adapters))) or "none"
            return (
                f"its companion {name} wears the adapter {companion.adapter!r}, which is not loaded; loaded: {loaded}: "
                "load it into the engine first"
            )
    return None


def together(
    uses: Sequence[Use], order: Sequence[str], max_tokens: int | None, model: Model, limits: Limits | None
) -> int | None:
    """Check the companions of one request, and return how many tokens it generates at most: all of them must fit.

    Raises:
        ValueError: they are too many or too long, one is empty, or two methods want to guide in no order.
    """
    guided = [use for use in uses if use.companions]
    if not guided:
        return max_tokens
    names = [use.name for use in guided]
    if len(guided) > 1 and not set(names) <= set(order):
        said = ", ".join(f'"{name}"' for name in names)
        raise ValueError(
            f"midstep: {' and '.join(names)} both guide the answer, one on what the other leaves; say which comes "
            f'first: "order": [{said}]'
        )
    count = sum(len(use.companions) for use in guided)
    if limits is not None and count > limits.companions:
        raise ValueError(
            f"midstep: {', '.join(names)}: {count} companions in one request; allowed on this server: "
            f"{limits.companions} (limits.companions)"
        )
    longest = 0
    for use in guided:
        for short, companion in use.companions.items():
            longest = max(longest, _checked(f"{use.name}.{short}", companion, model))
    if model.max_length is None:
        return max_tokens
    room = model.max_length - longest
    return room if max_tokens is None else min(max_tokens, room)


def _checked(name: str, companion: Companion, model: Model) -> int:
    length = len(companion.prompt)
    if not length:
        raise ValueError(f"midstep: {name}: its prompt has no tokens; it needs one at least")
    if model.max_length is not None and length >= model.max_length:
        raise ValueError(
            f"midstep: {name}: a companion's prompt of {length} tokens; this server's context has {model.max_length}, "
            "the answer included: send a shorter one"
        )
    strays = [token for token in companion.prompt if not 0 <= token < model.vocabulary]
    if strays:
        raise ValueError(f"midstep: {name}: token id {strays[0]}; allowed: 0 to {model.vocabulary - 1}")
    return length


def paired(entries: Sequence[Admission | Shadow]) -> tuple[list[int], list[tuple[int, int, str]]]:
    """Sort out the entries of a call.

    Returns:
        Which of them are main requests; and of each companion whose main request is there: its place among the
        entries, the place of its main request among the mains, and its name.
    """
    mains = [i for i, entry in enumerate(entries) if not isinstance(entry, Shadow)]
    at = {entries[i].key: r for r, i in enumerate(mains)}
    theirs = [(i, entry) for i, entry in enumerate(entries) if isinstance(entry, Shadow) and entry.of in at]
    return mains, [(i, at[shadow.of], shadow.name) for i, shadow in theirs]


@dataclass(frozen=True)
class Companions:
    """The companions' rows of one call, with the penalties of the main rows.

    Penalties and bias are the same in every row, so that a contrast whose weights add up to 1 has them once.

    Args:
        logits: [N, V], the engine's.
        penalise: applies the penalties of main rows `of` [C] to logits [C, V] float32.
    """

    batch: Batch
    logits: Tensor
    penalise: Callable[..., Tensor]

    @cached_property
    def _theirs(self) -> Tensor:
        beside = self.batch.beside
        assert beside is not None
        theirs = self.logits.index_select(0, beside.rows).float()
        return self.penalise(theirs, of=beside.of) if self.batch.penalised else theirs

    @property
    def _none(self) -> bool:
        return self.batch.beside is None or not len(self.batch.beside.rows)

    def of(self, group: Group, own: Tensor) -> Mapping[str, Tensor]:
        """Return a group's companions' logits by name, [r, V] float32; copied only when they are asked for.

        Args:
            own: [R, V] float32, the main rows as they are now. They stand for a companion that is not there: the row
                has not asked for one of that name, or it ends.
        """
        return Copies(tuple(group.companions), lambda: self._copied(group, group.of(own)))

    def _copied(self, group: Group, own: Tensor) -> Mapping[str, Tensor]:
        if self._none:
            return dict.fromkeys(group.companions, own)
        return {
            short: torch.where((index < 0)[:, None], own, self._theirs[index.clamp_min(0)])
            for short, index in group.companions.items()
        }

    def where(self, group: Group) -> tuple[Tensor, Tensor]:
        """Return a tensor [M, V] that holds a group's companions, and which of its rows each is.

        The latter is [r, K] int64, -1 for one that is not there. Without penalties the tensor is the engine's own.
        """
        if self._none or not group.companions:
            index = torch.full_like(group.of(self.batch.slots), -1)
            return self.logits, index[:, None].expand(-1, len(group.companions))
        index = torch.stack(list(group.companions.values()), 1).clamp_min(-1)
        if self.batch.penalised:
            return self._theirs, index
        assert self.batch.beside is not None
        return self.logits, torch.where(index < 0, -1, self.batch.beside.rows[index.clamp_min(0)])


class Copies(Mapping[str, Tensor]):
    """What `copy` returns, which is called when the first of `names` is looked up."""

    def __init__(self, names: Sequence[str], copy: Callable[[], Mapping[str, Tensor]]) -> None:
        self._names = names
        self._copy = copy
        self._copies: Mapping[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        """Return one companion's logits."""
        if self._copies is None:
            self._copies = self._copy()
        return self._copies[name]

    def __contains__(self, name: object) -> bool:
        """Say whether there is such a companion."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Say how many companions there are."""
        return len(self._names)
