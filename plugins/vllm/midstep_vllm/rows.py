"""Which rows of a call are midstep's: vLLM's V1 runner keeps requests by row, its V2 runner by slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from midstep.slots import upload

from .wire import key_and_wire


@dataclass(frozen=True)
class Gathered:
    """The R rows of one call that are midstep's.

    Args:
        keys: of their requests.
        rows: where each is among the call's rows.
        position: [R] int64, the tokens each has generated.
        fed: [R] int64, the token that was fed at this call, -1 where it is not shown.
    """

    keys: tuple[str, ...]
    rows: tuple[int, ...]
    position: Tensor
    fed: Tensor


class V1Rows:
    """Rows of the V1 runner. A row whose prompt is only partly there cannot be told from a whole one here: its
    position repeats, and what is drawn for it is thrown away.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._at: dict[int, tuple[str, list[int]]] = {}

    def update(self, batch_update: Any) -> None:
        """Follow the requests that came, went and moved."""
        process_dict_updates(self._at, batch_update, _entry)

    def __bool__(self) -> bool:
        return bool(self._at)

    def release(self, key: str) -> None:
        """Forget nothing: the runner says itself when a row is gone."""

    def keys(self) -> list[str]:
        """Return every key that is known."""
        return [key for key, _ in self._at.values()]

    def gather(self, count: int, context: Any) -> Gathered | None:
        """Return the rows of a call of `count` rows, or None where none is midstep's."""
        mine = sorted((row, *entry) for row, entry in self._at.items() if row < count)
        if not mine:
            return None
        rows, keys, outputs = zip(*mine, strict=True)
        # the list's length is right in every mode; its last id is -1 where it is not known yet
        numbers = upload(
            [list(map(len, outputs)), [ids[-1] if ids else -1 for ids in outputs]], torch.int64, self.device
        )
        return Gathered(keys, rows, numbers[0], numbers[1])


@dataclass(frozen=True)
class _Where:
    """Where midstep's rows of a call are, until something changes.

    Args:
        index: the rows on the device, None where they are all; and `last`: the last positions of their prompts.
    """

    keys: tuple[str, ...]
    rows: tuple[int, ...]
    index: Tensor | None
    last: Tensor


class V2Rows:
    """Rows of the V2 runner, whose slots change when a request is preempted."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._mine = np.zeros(state.max_num_reqs, dtype=bool)
        self._keys: dict[int, str] = {}
        self._slots: dict[str, int] = {}
        self._changes = 0
        self._last: tuple[object, _Where] | None = None

    def add(self, slot: int, params: Any) -> bool:
        """Say whether the request that comes into `slot` is midstep's."""
        self._forget(slot)
        wire = key_and_wire(params)
        if wire is None:
            return False
        key = wire["key"]
        if key in self._slots:
            self._forget(self._slots[key])
        self._mine[slot], self._keys[slot], self._slots[key] = True, key, slot
        return True

    def __bool__(self) -> bool:
        return bool(self._keys)

    def release(self, key: str) -> None:
        """Forget a request that has ended."""
        if key in self._slots:
            self._forget(self._slots[key])

    def keys(self) -> list[str]:
        """Return every key that is known."""
        return list(self._slots)

    def gather(self, count: int, context: Any) -> Gathered | None:
        """Return the rows of a call, or None where none is midstep's. Partial prefill chunks are left out."""
        slots = context.idx_mapping_np
        mine = self._mine[slots]
        if not mine.any():
            return None
        # under a CUDA graph the lengths are padded to its size
        whole = context.seq_lens_upper_bound_np[: len(slots)] >= self._state.prefill_len.np[slots]
        found = mine & whole
        if not found.any():
            return None
        where = self._where(slots, found)
        position, fed = context.pos, context.input_ids
        if where.index is not None:
            position, fed = position.index_select(0, where.index), fed.index_select(0, where.index)
        return Gathered(where.keys, where.rows, position.long() - where.last, fed.long())

    def _where(self, slots: Any, found: Any) -> _Where:
        """Return where the `found` rows are; worked out and copied only when something has changed."""
        signature = (self._changes, slots.tobytes(), found.tobytes())
        if self._last is None or self._last[0] != signature:
            rows = np.flatnonzero(found).tolist()
            mine = slots[rows]
            last = (self._state.prompt_len.np[mine] - 1).tolist()
            both = upload([rows, last], torch.int64, self._state.device)
            keys = tuple(self._keys[slot] for slot in mine.tolist())
            everyone = len(rows) == len(slots)
            self._last = signature, _Where(keys, tuple(rows), None if everyone else both[0], both[1])
        return self._last[1]

    def _forget(self, slot: int) -> None:
        self._changes += 1
        key = self._keys.pop(slot, None)
        self._mine[slot] = False
        if key is not None:
            del self._slots[key]


def _entry(params: Any, prompt: list[int] | None, output: list[int]) -> tuple[str, list[int]] | None:
    wire = key_and_wire(params)
    return None if wire is None else (wire["key"], output)
