"""One call under way: its tensors, replaced as the methods run, and what every stage does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .batch import MISSING, Batch, Group
from .chain import Chain
from .closing import Left, Refusals
from .companions import Companions
from .guards import COMPANION, STATE, Guard
from .memory import Memory
from .methods import CONTINUE, FORCE, Column
from .noise import gumbel_noise
from .opening import Opened
from .operation import uses_kernels
from .rows import Rows, no_history, no_sequences
from .sampling import temper

# Of a row's sequences: the one under way, 1 + its index, and how far it has come; and the one that has just begun.
QUEUE = ("", "queue")
QUEUE_COLUMN = Column(torch.int64, shape=(3,))

Method = Callable[[Tensor, Rows], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Standby:
    """What a stop forces where the row draws `token` [R], -1 for never; the rest as in `Call`."""

    token: Tensor
    rule: Tensor
    value: Tensor
    threshold: Tensor
    forced: Tensor


@dataclass
class Call:
    """The R rows of one call.

    Args:
        position: [R] as the engine has it, negative for a row that is thrown away; `at`: 0 there.
        written: [R] the slots that this call writes.
        raw: [R, V] float32 after the penalties, before any method.
        logits: [R, V] float32 now, untempered.
        token: [R] what the row would draw from what it has now.
        fault: [R] the first fault, 0 for none, else 1 + its index in FAULTS; `culprit`: 1 + the method's index.
        changed: [R, methods] bool, which methods changed the token.
        rule: [R] 1 + the index of the stop that acted; `end`: it ended the request; `forced`: 1 + its sequence.
        standby: what a stop forces if the row draws a certain token.
        companions: the companions' rows.
        chain: the threshold rules, where all that the rows ask of a sampler can run fused.
        refusals: what the chain refused, once it has run.
        drawn: [R] bool, the rows whose token is drawn already, and `drawn_rows`, how many; None for none.
    """

    batch: Batch
    memory: Memory
    guard: Guard
    position: Tensor
    at: Tensor
    written: Tensor
    raw: Tensor
    logits: Tensor
    token: Tensor
    fault: Tensor
    culprit: Tensor
    changed: Tensor
    end: Tensor
    rule: Tensor
    value: Tensor
    threshold: Tensor
    forced: Tensor
    companions: Companions
    standby: Standby | None = None
    chain: Chain | None = None
    refusals: Refusals | None = None
    noise: Tensor | None = None
    drawn: Tensor | None = None
    drawn_rows: int = 0

    @classmethod
    def begin(
        cls,
        batch: Batch,
        memory: Memory,
        guard: Guard,
        position: Tensor,
        opened: Opened,
        logits: Tensor,
        companions: Companions,
        chain: Chain | None,
    ) -> Call:
        """Begin a call on penalised `logits` [R, V] float32."""
        zero, blank = batch.zero, batch.blank
        return cls(
            batch=batch,
            memory=memory,
            guard=guard,
            position=position,
            at=opened.position,
            written=opened.written,
            raw=logits,
            logits=logits,
            token=zero,
            fault=opened.fault,
            culprit=opened.culprit,
            changed=batch.unchanged,
            end=batch.no,
            rule=zero,
            value=blank,
            threshold=blank,
            forced=zero,
            companions=companions,
            chain=chain,
        )

    def tempered(self) -> Tensor:
        """Return the logits [R, V] at each row's temperature."""
        return temper(self.logits, self.batch.sampling["temperature"]) if self.batch.warm else self.logits

    def draw(self, tempered: Tensor) -> Tensor:
        """Draw from tempered logits [R, V]; every draw of a call has the same noise."""
        if not self.batch.random:
            return tempered.argmax(-1)
        if uses_kernels(tempered):
            from .kernel import draw

            return draw(tempered, self.batch.seed, self.at, self.batch.sampled)
        if self.noise is None:
            noise = gumbel_noise(self.batch.seed, self.at, tempered.shape[1])
            self.noise = noise.masked_fill_(~self.batch.sampled[:, None], 0.0)
        return (tempered + self.noise).argmax(-1)

    def blame(self, group: Group, fault: Tensor) -> None:
        """Note a fault per row of the group; a row's first one counts."""
        first = (group.of(self.fault) == 0) & (fault > 0)
        self.fault = group.put(self.fault, torch.where(first, fault, group.of(self.fault)))
        self.culprit = group.put(self.culprit, torch.where(first, group.index + 1, group.of(self.culprit)))

    def change(self, group: Group, changed: Tensor) -> None:
        """Note which rows' token the group's method changed, [r] bool."""
        if self.changed is self.batch.unchanged:
            self.changed = self.changed.clone()
        column = self.changed[:, group.index]
        self.changed[:, group.index] = group.put(column, group.of(column) | changed)

    def alone(self, apart: Tensor | None) -> None:
        """Blame the rows whose companion is not there, before all else: such a row must end.

        Args:
            apart: [R] bool, a companion of the row is at another position, or was fed another token.
        """
        if not any(group.companions for group in self.batch.groups):
            return
        fault, culprit, self.fault, self.culprit = self.fault, self.culprit, self.batch.zero, self.batch.zero
        for group in self.batch.groups:
            for index in group.companions.values():
                missing = index == MISSING if apart is None else (index == MISSING) | group.of(apart)
                self.blame(group, torch.where(missing, COMPANION, 0))
        self.culprit = torch.where(self.fault > 0, self.culprit, culprit)
        self.fault = torch.where(self.fault > 0, self.fault, fault)

    def left(self, trace: Tensor | None) -> Left:
        """Return what the stages left."""
        return Left(
            self.position,
            self.written,
            self.token,
            self.rule,
            self.fault,
            self.culprit,
            self.value,
            self.threshold,
            self.end,
            self.changed,
            trace,
        )

    def rows(self, group: Group) -> Rows:
        """Return what the group's method sees."""
        slots, position = group.of(self.batch.slots), group.of(self.at)
        state = {}
        for short, column in group.method.state.items():
            init = getattr(group.params, column.init) if isinstance(column.init, str) else column.init
            state[short] = self.memory.read((group.name, short), slots, position, init)
        return Rows(
            params=group.params,
            position=position,
            seed=group.of(self.batch.seed),
            sampled=group.of(self.batch.sampled),
            state=state,
            companions=self.companions.of(group, self.logits),
            ids=self.memory.ids({short: (group.name, short) for short in group.ids}, slots),
            began=(lambda: self._began(group, slots, position)) if group.sequences else no_sequences,
            history=(lambda: self.memory.history(slots, position, self.batch.room))
            if group.method.history
            else no_history,
        )

    def _began(self, group: Group, slots: Tensor, position: Tensor) -> Tensor:
        which = self.memory.read(QUEUE, slots, position, 0)[:, 2] - group.base
        return torch.where((which > 0) & (which <= group.count), which - 1 + FORCE, CONTINUE)

    def guarded(
        self, group: Group, logits: Tensor, fallback: Mapping[str, Tensor], method: Method
    ) -> Mapping[str, Tensor]:
        """Run the group's method; `fallback` stands for the results of rows that failed. Its state is written."""
        rows = self.rows(group)
        states = {f"state.{short}": value for short, value in rows.state.items()}

        def run(logits: Tensor, rows: Rows) -> Mapping[str, Tensor]:
            return {**method(logits, rows), **{key: rows.state[key.removeprefix("state.")] for key in states}}

        outcome = self.guard.call(group.name, run, logits, rows, {**fallback, **states})
        if outcome.fault is not None:
            self.blame(group, outcome.fault)
        slots, position = group.of(self.written), group.of(self.position)
        for short in rows.state:
            self.memory.write((group.name, short), slots, position, outcome.results[f"state.{short}"])
        if not states:
            return outcome.results
        lost = (group.of(self.fault) == STATE)[:, None]
        found = {name: outcome.results[name] for name in fallback}
        return {n: torch.where(lost if v.ndim > 1 else lost[:, 0], fallback[n], v) for n, v in found.items()}
