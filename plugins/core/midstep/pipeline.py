"""Runs the methods that the rows of a call asked for, and draws their tokens.

An engine adapter says three things: `run` a call, read the record that it returns, `release` a request that has ended.
The order in a row: penalties, stops, logits processors, temperature, keep rules, the request's own top-k, top-p and
min-p, then one sampler or midstep's own draw. The drawn token is left at 0 and all others at -inf, so that any engine
that draws from logits obeys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from .admission import Admission
from .batch import SAMPLING, Batch, Beside, build, room
from .call import QUEUE, QUEUE_COLUMN, Call
from .chain import Chain, chain, drawn_first
from .closing import Terms, settled, written
from .companions import Companions, Shadow
from .configuration import Limits
from .guards import Guard
from .guide import draws, guide, guides, sample_rest
from .memory import Memory
from .methods import LogitsProcessor, Method, StopController
from .operation import uses_kernels
from .plugins import catalogue
from .record import FIELDS, Record
from .sampling import penalise
from .slots import Name, Slots
from .stages import force, process, stop


class Pipeline:
    """The methods of one engine process, and what they remember of the live requests.

    Args:
        device: where the logits are.
        limit: live requests whose memory is kept; one that comes back without it ends, where a method needs it.
        max_length: prompt and generated tokens of one request at most, where the request itself says no less.
        limits: how long a method may take.
        ends_by_token: a stop forces one of the request's end tokens, for engines that cannot be told to end it.
    """

    def __init__(
        self,
        device: torch.device | str,
        *,
        limit: int = 1024,
        max_length: int = 4096,
        limits: Limits | None = None,
        ends_by_token: bool = False,
    ) -> None:
        limits = limits or Limits()
        self.device = torch.device(device)
        self.max_length = max_length
        self.ends_by_token = ends_by_token
        self.slots = Slots(self.device, limit)
        self.memory = Memory(self.device)
        self.guard = Guard(limits.call_seconds, limits.slow_calls)
        self._methods: dict[str, Method] = {}
        self._last: tuple[object, Batch] | None = None
        self._chained: tuple[Batch, Chain | None] | None = None

    def release(self, keys: Iterable[str]) -> None:
        """Forget requests that have ended."""
        for key in keys:
            self.slots.release(key)

    def run(
        self,
        logits: Tensor,
        entries: Sequence[Admission | Shadow],
        rows: Sequence[int],
        position: Tensor,
        fed: Tensor | None = None,
    ) -> Record:
        """Run one call: replace the rows of `logits` by their drawn tokens, in place.

        Args:
            logits: [N, V] float, the engine's rows, with its masks applied.
            entries: the E requests that use midstep, and their companions.
            rows: where each of them is among the N.
            position: [E] int64, the tokens each has generated; negative where the engine will throw the token away.
            fed: [E] int64, the token that the engine fed at this call where it shows it, else -1.
        """
        if all(isinstance(entry, Shadow) for entry in entries):  # their main requests' prompts are still being read
            return Record((), (), torch.empty(0, len(FIELDS)))
        batch = self._batch(entries, rows)
        apart = None
        if batch.beside is not None:
            apart, position, fed = _in_step(batch.beside, position, fed)
        everyone = batch.beside is None and list(rows) == list(range(len(logits)))
        mine = logits if everyone else logits.index_select(0, batch.rows)
        chain = self._chain(batch) if uses_kernels(mine) else None
        raw = self._penalised(batch, mine.float(), position)
        companions = Companions(batch, logits, partial(self._penalised, batch, position=position))
        opened = self.memory.open(batch.slots, position, batch.never if fed is None else fed, batch.first, batch.keeper)
        call = Call.begin(batch, self.memory, self.guard, position, opened, raw, companions, chain)
        call.alone(apart)
        if drawn_first([group for group in batch.groups if not draws(call, group)], chain is not None):
            call.token = call.draw(call.tempered())
        for group in batch.groups:
            if isinstance(group.method, StopController):
                stop(call, group)
            elif guides(call, group):
                guide(call, group)
            elif isinstance(group.method, LogitsProcessor):
                process(call, group)
        tempered = sample_rest(call)
        if batch.forced is not None:
            force(call)
        left = call.left(_trace(call, tempered) if batch.traced else None)
        terms = Terms(batch.stops_on_error, batch.ends if self.ends_by_token else batch.never)
        token, values = settled(call.token, left, call.refusals, terms, self.memory.kept())
        record = Record.of(batch.admissions, batch.names, values, batch.traced)
        written(logits, batch.targets, batch.sources, token)  # last: `raw` may be the engine's own rows
        return record

    def _batch(self, entries: Sequence[Admission | Shadow], rows: Sequence[int]) -> Batch:
        keys, at = tuple(entry.key for entry in entries), tuple(rows)
        if self._last is None or self._last[0] != (self.slots.version, keys, at):
            slots = [self._slot(entry, keys) for entry in entries if isinstance(entry, Admission)]
            self.slots.flush()
            batch = build(entries, rows, slots, self.slots, self._methods, self.max_length)
            self._last = (self.slots.version, keys, at), batch
        return self._last[1]

    def _chain(self, batch: Batch) -> Chain | None:
        if self._chained is None or self._chained[0] is not batch:
            self._chained = batch, chain(batch)
        return self._chained[1]

    def _slot(self, admission: Admission, needed: Sequence[str]) -> int:
        slot = self.slots.find(admission.key)
        return self._admit(admission, needed) if slot is None else slot

    def _admit(self, admission: Admission, needed: Sequence[str]) -> int:
        slot = self.slots.acquire(admission.key, needed)
        self.memory.forget(slot, self.slots.capacity)
        seed = admission.seed or 0
        numbers: dict[Name, float] = {("", name): getattr(admission.sampling, name) for name in SAMPLING}
        numbers |= {("", "seed_high"): seed >> 32, ("", "seed_low"): seed & 0xFFFFFFFF}
        numbers |= {("", "stops_on_error"): admission.on_error == "stop", ("", "end token"): (*admission.ends, -1)[0]}
        sequences: list[tuple[int, ...]] = []
        history = admission.sampling.penalises()
        for use in admission.uses:
            if use.name not in self._methods:
                self._methods[use.name] = catalogue().find(use.name)()
            method = self._methods[use.name]
            numbers |= {(use.name, column): value for column, value in use.columns.items()}
            numbers[use.name, "sequences from"] = len(sequences)
            numbers[use.name, "sequences"] = len(use.sequences)
            sequences += use.sequences
            history = history or method.history
            for short, ids in use.ids.items():
                self.memory.store((use.name, short), slot, ids)
            for short, column in method.state.items():
                shape = [int(use.columns[n]) if isinstance(n, str) else n for n in column.shape]
                self.memory.reserve((use.name, short), column, shape)
        self.slots.write(slot, numbers)
        if history:
            self.memory.remember(slot, admission.prompt, room(admission, self.max_length))
        if sequences:
            self._keep_sequences(slot, sequences)
        return slot

    def _keep_sequences(self, slot: int, sequences: Sequence[Sequence[int]]) -> None:
        """Keep prepared sequences one after the other: where each starts, how long each is, and the ids."""
        self.memory.reserve(QUEUE, QUEUE_COLUMN, [3])
        self.memory.store(("", "starts"), slot, [sum(map(len, sequences[:i])) for i in range(len(sequences))])
        self.memory.store(("", "lengths"), slot, [len(ids) for ids in sequences])
        self.memory.store(("", "sequences"), slot, [token for ids in sequences for token in ids])

    def _penalised(self, batch: Batch, logits: Tensor, position: Tensor, of: Tensor | None = None) -> Tensor:
        """Apply the penalties of the main rows, or of the main rows `of`, to `logits`."""
        if not batch.penalised:
            return logits
        slots, position = (batch.slots, position) if of is None else (batch.slots[of], position[of])
        history = self.memory.history(slots, position, batch.room)
        factors = (batch.sampling[f"{name}_penalty"] for name in ("repetition", "presence", "frequency"))
        factors = (column if of is None else column[of] for column in factors)
        return penalise(logits, history, position.clamp_min(0), *factors)


def _trace(call: Call, tempered: Tensor) -> Tensor:
    """Return what a trace shows of each row, [R, 3] float32: `record.TRACED`."""
    token = call.token[:, None]
    found = [torch.softmax(x, -1).gather(1, token)[:, 0] for x in (tempered, call.raw)]
    return torch.stack((call.raw.argmax(-1).float(), *found), 1)


def _in_step(beside: Beside, position: Tensor, fed: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compare companions with their main requests.

    Returns:
        Which main rows have a companion at another position or with another token, [R] bool; and the main rows' own
        positions and fed tokens.
    """
    own = position[beside.mains]
    apart = position[beside.entries] != own[beside.of]
    token = None
    if fed is not None:
        token = fed[beside.mains]
        theirs, mine = fed[beside.entries], token[beside.of]
        # at position 0 what was fed are the ends of two prompts
        apart = apart | (theirs >= 0) & (mine >= 0) & (theirs != mine) & (own[beside.of] > 0)
    count = torch.zeros_like(own).index_add_(0, beside.of, apart.long())
    return count > 0, own, token
