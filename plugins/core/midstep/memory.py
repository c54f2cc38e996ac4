"""What midstep remembers of each request on the device, as a function of the position.

Engines repeat calls (partial prefill chunks) and rewind them (preemption, dropped tokens in flight). So each slot holds
a ring of the last DEPTH states, tagged with their positions: the state before position i is read at i - 1 and the new
one written at i, and a call that is repeated or rewound never advances twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .closing import Kept
from .methods import Column
from .opening import DEPTH, Opened, opened
from .operation import operation
from .rows import Ragged
from .slots import Name, grown, upload


def _recalled(ring: Tensor, slots: Tensor, position: Tensor, init: Tensor | float) -> Tensor:
    """Return a state as it was before `position`.

    Args:
        ring: [slots, DEPTH, *shape].
        slots: [R] int64.
        position: [R] int64.
        init: the state before position 0, a number or [R].

    Returns:
        [R, *shape], of the ring's dtype.
    """
    before = ring[slots, (position - 1) % DEPTH]
    first = (position <= 0).view(-1, *[1] * (ring.ndim - 2))
    if isinstance(init, Tensor):
        return torch.where(first, init.to(ring.dtype).view(-1, *[1] * (ring.ndim - 2)), before)
    return before.masked_fill(first, init)


def _stored(ring: Tensor, slots: Tensor, position: Tensor, value: Tensor) -> None:
    """Store a state as it is after `position`, in place; a narrower one leaves the rest of a wider ring alone.

    Args:
        ring: [slots, DEPTH, *shape], and slots, position as in `recalled`.
        value: [R, *shape], or less.
    """
    if value.shape[1:] != ring.shape[2:]:
        ring = ring[(slice(None), slice(None), *(slice(0, n) for n in value.shape[1:]))]
    ring[slots, position % DEPTH] = value


recalled = operation(_recalled, "midstep.bookkeeping:recalled")
stored = operation(_stored, "midstep.bookkeeping:stored")


class Memory:
    """State rings, drawn tokens, histories and prepared ids by slot."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._tag = torch.full((1, DEPTH), -1, dtype=torch.int64, device=device)
        self._drawn = torch.full((1, DEPTH), -1, dtype=torch.int64, device=device)
        self._rings: dict[Name, Tensor] = {}  # [capacity, DEPTH, *shape]
        self._history = torch.full((1, 0), -1, dtype=torch.int32, device=device)
        self._prompt_length = torch.zeros(1, dtype=torch.int64, device=device)
        self._ragged: dict[Name, tuple[Tensor, Tensor]] = {}  # [capacity, L], [capacity]

    def forget(self, slot: int, capacity: int) -> None:
        """Empty `slot` for a new request."""
        self._tag = grown(self._tag, (capacity, DEPTH), -1)
        self._drawn = grown(self._drawn, (capacity, DEPTH), -1)
        self._prompt_length = grown(self._prompt_length, (capacity,), -1)
        self._history = grown(self._history, (capacity, self._history.shape[1]), -1)
        self._tag[slot] = -1
        self._prompt_length[slot].fill_(-1)  # an assignment to one number would copy it, and wait for the device
        for name, (rows, lengths) in self._ragged.items():
            rows, lengths = grown(rows, (capacity, rows.shape[1]), -1), grown(lengths, (capacity,), 0)
            rows[slot] = -1
            lengths[slot].fill_(0)
            self._ragged[name] = rows, lengths

    def reserve(self, name: Name, column: Column, shape: Sequence[int]) -> None:
        """Make room for one state column."""
        ring = self._rings.get(name)
        if ring is None:
            ring = torch.zeros((1, DEPTH, *shape), dtype=column.dtype, device=self.device)
        self._rings[name] = grown(ring, (self._tag.shape[0], DEPTH, *shape), 0)

    def open(self, slots: Tensor, position: Tensor, fed: Tensor, first: Tensor, keeper: Tensor) -> Opened:
        """Begin a call: arguments as in `midstep.opening.opened`."""
        return opened(slots, position, fed, self._tag, self._drawn, first, keeper)

    def kept(self) -> Kept:
        """Return what the end of a call writes to: the tags, the drawn tokens, the histories."""
        return Kept(self._tag, self._drawn, self._history, self._prompt_length)

    def read(self, name: Name, slots: Tensor, position: Tensor, init: Tensor | float) -> Tensor:
        """Return one state as it was before `position`, [R, *shape]; `init` ([R] or a number) at the first."""
        return recalled(self._rings[name], slots, position, init)

    def write(self, name: Name, slots: Tensor, position: Tensor, value: Tensor) -> None:
        """Store one state as it is after `position`; a narrower state leaves the rest of a wider ring alone."""
        stored(self._rings[name], slots, position, value)

    def remember(self, slot: int, prompt: Sequence[int], length: int) -> None:
        """Keep the whole history of `slot`: its prompt, and room for `length` ids in all."""
        room = max(length, self._history.shape[1], 1)
        self._history = grown(self._history, (self._tag.shape[0], room), -1)
        self._history[slot, : len(prompt)] = upload(prompt, torch.int32, self.device)
        self._prompt_length[slot].fill_(len(prompt))

    def history(self, slots: Tensor, position: Tensor, room: int) -> Ragged:
        """Return prompt and generated ids of `slots`; none of them has more than `room`."""
        lengths = self._prompt_length[slots] + position.clamp_min(0)
        ids = self._history[:, :room][slots].long()
        beyond = torch.arange(ids.shape[1], device=ids.device)[None] >= lengths[:, None]
        return Ragged(ids.masked_fill(beyond, -1), lengths)

    def store(self, name: Name, slot: int, ids: Sequence[int]) -> None:
        """Keep prepared token ids of `slot`."""
        capacity = self._tag.shape[0]
        empty = (torch.full((1, 0), -1, device=self.device), torch.zeros(1, dtype=torch.int64, device=self.device))
        rows, lengths = self._ragged.get(name, empty)
        rows, lengths = grown(rows, (capacity, len(ids)), -1), grown(lengths, (capacity,), 0)
        rows[slot] = -1
        rows[slot, : len(ids)] = upload(ids, torch.int64, self.device)
        lengths[slot].fill_(len(ids))
        self._ragged[name] = rows, lengths

    def ids(self, names: Mapping[str, Name], slots: Tensor) -> dict[str, Ragged]:
        """Return prepared token ids by name."""
        return {
            short: Ragged(self._ragged[name][0][slots], self._ragged[name][1][slots]) for short, name in names.items()
        }
