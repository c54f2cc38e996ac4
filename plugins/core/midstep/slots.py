"""A fixed place for each live request, and its numbers in one table on the device.

A slot is found by the request's key, never by a row: rows move, engines give a resumed request another slot of their
own, and a preempted request comes back as if it were new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Name = tuple[str, str]  # method ("" for midstep's own), column


def upload(data: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `data` on `device` without making the host wait."""
    host = torch.tensor(data, dtype=dtype, pin_memory=device.type == "cuda")
    return host.to(device, non_blocking=True)


def grown(tensor: Tensor, shape: Sequence[int], fill: float) -> Tensor:
    """Return `tensor` enlarged to at least `shape`, filled with `fill`."""
    target = tuple(max(have, want) for have, want in zip(tensor.shape, shape, strict=True))
    if target == tuple(tensor.shape):
        return tensor
    larger = torch.full(target, fill, dtype=tensor.dtype, device=tensor.device)
    larger[tuple(slice(0, n) for n in tensor.shape)] = tensor
    return larger


class Slots:
    """Keys to slots, least recently used first, and a table [capacity, columns] float64 of what each request set.

    Args:
        device: of the table.
        limit: live requests at most; beyond it, the one that was longest unused loses its slot, and its memory.
    """

    def __init__(self, device: torch.device, limit: int) -> None:
        self.device = device
        self.limit = limit
        self.capacity = 1
        self.version = 0  # goes up whenever a key or a number changes
        self._of: OrderedDict[str, int] = OrderedDict()
        self._free: list[int] = []
        self._columns: dict[Name, int] = {}
        self._dtypes: dict[Name, torch.dtype] = {}
        self._host = torch.zeros(1, 0, dtype=torch.float64)
        self._table = torch.zeros(1, 0, dtype=torch.float64, device=device)
        self._dirty: set[int] = set()

    def __len__(self) -> int:
        return len(self._of)

    def find(self, key: str) -> int | None:
        """Return the slot of `key` and mark it as used, or None."""
        slot = self._of.get(key)
        if slot is not None:
            self._of.move_to_end(key)
        return slot

    def acquire(self, key: str, needed: Collection[str] = ()) -> int:
        """Give `key` a slot; where the table is full, take it from a request that is not among `needed`."""
        if len(self._of) >= self.limit:
            idle = next((k for k in self._of if k not in needed), None)
            if idle is not None:
                self.release(idle)
        if not self._free:
            self._grow(max(2 * self.capacity, 16))
        slot = self._of[key] = self._free.pop()
        self._host[slot] = 0.0
        self._dirty.add(slot)
        self.version += 1
        return slot

    def release(self, key: str) -> bool:
        """Free the slot of `key`; say whether it had one."""
        slot = self._of.pop(key, None)
        if slot is None:
            return False
        self._free.append(slot)
        self.version += 1
        return True

    def write(self, slot: int, values: Mapping[Name, float]) -> None:
        """Set the numbers of `slot`; they reach the device at the next `flush`."""
        for name, value in values.items():
            column = self._columns.setdefault(name, len(self._columns))
            dtype = torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else torch.float32
            known = self._dtypes.setdefault(name, dtype)
            if known is not dtype:  # a column that is ever a fraction is one for everybody
                self._dtypes[name] = torch.float32
            if column >= self._host.shape[1]:
                self._host = grown(self._host, (self.capacity, 2 * column + 8), 0.0)
            self._host[slot, column] = value
        self._dirty.add(slot)
        self.version += 1

    def flush(self) -> None:
        """Copy what was written to the device: one copy, however many columns."""
        if not self._dirty:
            return
        self._table = grown(self._table, self._host.shape, 0.0)
        slots = sorted(self._dirty)
        lines = self._host[slots]
        if self.device.type == "cuda":
            lines = lines.pin_memory()
        self._table.index_copy_(0, upload(slots, torch.int64, self.device), lines.to(self.device, non_blocking=True))
        self._dirty.clear()

    def read(self, name: Name, slots: Tensor) -> Tensor:
        """Return one column for `slots` [R], with the dtype of the values written."""
        return self._table[:, self._columns[name]][slots].to(self._dtypes[name])

    def _grow(self, capacity: int) -> None:
        self._free.extend(range(capacity - 1, self.capacity - 1, -1))
        self._host = grown(self._host, (capacity, self._host.shape[1]), 0.0)
        self._table = grown(self._table, (capacity, self._table.shape[1]), 0.0)
        self.capacity = capacity
