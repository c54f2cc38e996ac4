"""What one call has to tell: one small tensor on the device, read when the engine reads its own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .admission import Admission
from .guards import FAULTS

# By type, so that a device turns each type into float32 at once: whole numbers, fractions, and one truth, behind which
# stand the methods that changed the token. The traced ones are there in a call in which a row has a trace.
WHOLE = ("position", "token", "rule", "fault", "culprit")
FRACTIONS = ("value", "threshold")
TRACED = ("best", "probability", "unsteered")
FIELDS = (*WHOLE, *FRACTIONS, "end")


class Event(NamedTuple):
    """What happened to one request at one position; plain values, so that it crosses processes.

    A tuple, since a call may make one for each of its rows: a frozen dataclass takes six times as long.

    Args:
        key: the request's.
        position: of the token.
        token: its id.
        end: the request ends with this token.
        rule: the stop that ended it or that forced the token; "" for none.
        value: what the stop measured, and the threshold it compared with.
        fault: one of FAULTS, or "".
        method: the method at fault, or "".
        changed: the methods that changed the token.
        trace: the unsteered best token, the chosen token's probability, and the same without any method; or None.
    """

    key: str
    position: int
    token: int
    end: bool
    rule: str
    value: float
    threshold: float
    fault: str
    method: str
    changed: tuple[str, ...]
    trace: tuple[int, float, float] | None


@dataclass(frozen=True)
class Record:
    """One call's events before they are read.

    Args:
        admissions: of the R rows.
        names: of the methods.
        values: [R, fields + methods] float32, which holds every token id and every position; on the host, valid after
            `ready`.
        traced: whether the fields of a trace are among them.
        ready: a CUDA event, or None where nothing is in flight.
    """

    admissions: tuple[Admission, ...]
    names: tuple[str, ...]
    values: Tensor
    traced: bool = False
    ready: Any = None

    @classmethod
    def of(cls, admissions: tuple[Admission, ...], names: Sequence[str], values: Tensor, traced: bool) -> Record:
        """Start the copy of `values` to the host; nothing waits for it."""
        if values.device.type != "cuda":
            return cls(admissions, tuple(names), values, traced)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        return cls(admissions, tuple(names), host, traced, ready)

    def events(self) -> list[Event]:
        """Wait for the copy and return the rows that have something to tell."""
        if self.ready is not None:
            self.ready.synchronize()
        found = []
        last = len(FIELDS) + len(TRACED) * self.traced
        lines = self.values.numpy()
        # most rows have nothing to tell: rule and fault, the end, and the methods that changed the token
        speaks = np.concatenate((lines[:, 2:4], lines[:, last - 1 :]), 1).any(1)
        if self.traced:
            speaks = speaks | np.array([admission.trace for admission in self.admissions])
        for row in np.flatnonzero(speaks & (lines[:, 0] >= 0)).tolist():
            admission, line = self.admissions[row], lines[row].tolist()
            position, token, rule, fault, culprit, value, threshold = line[:7]
            end, changes = line[last - 1], any(line[last:])
            changed = tuple(n for n, c in zip(self.names, line[last:], strict=True) if c) if changes else ()
            best, probability, unsteered = line[7 : last - 1] or (0.0, 0.0, 0.0)
            found.append(
                Event(
                    key=admission.key,
                    position=int(position),
                    token=int(token),
                    end=bool(end),
                    rule=self.names[int(rule) - 1] if rule else "",
                    value=value,
                    threshold=threshold,
                    fault=FAULTS[int(fault) - 1] if fault else "",
                    method=self.names[int(culprit) - 1] if culprit else "",
                    changed=changed,
                    trace=(int(best), probability, unsteered) if admission.trace else None,
                )
            )
        return found
