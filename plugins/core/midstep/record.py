"""What one call has to tell: one small tensor on the device, read when the engine reads its own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .admission import Admission
from .guards import FAULTS

FIELDS = (
    "position",
    "token",
    "end",
    "rule",
    "value",
    "threshold",
    "fault",
    "culprit",
    "best",
    "probability",
    "unsteered",
)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one request at one position; plain values, so that it crosses processes.

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
    """One call's events before they are read: [R, fields + methods] float64 on the host, valid after `ready`."""

    admissions: tuple[Admission, ...]
    names: tuple[str, ...]
    values: Tensor
    ready: Any = None  # a CUDA event, or None where nothing is in flight

    @classmethod
    def of(cls, admissions: tuple[Admission, ...], names: Sequence[str], values: Tensor) -> Record:
        """Start the copy of `values` to the host; nothing waits for it."""
        if values.device.type != "cuda":
            return cls(admissions, tuple(names), values)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        return cls(admissions, tuple(names), host, ready)

    def events(self) -> list[Event]:
        """Wait for the copy and return the rows that have something to tell."""
        if self.ready is not None:
            self.ready.synchronize()
        found = []
        for admission, line in zip(self.admissions, self.values.tolist(), strict=True):
            at = dict(zip(FIELDS, line, strict=False))
            changed = tuple(n for n, c in zip(self.names, line[len(FIELDS) :], strict=True) if c)
            if at["position"] < 0 or not (at["end"] or at["fault"] or at["rule"] or changed or admission.trace):
                continue
            fault, rule = int(at["fault"]), int(at["rule"])
            found.append(
                Event(
                    key=admission.key,
                    position=int(at["position"]),
                    token=int(at["token"]),
                    end=bool(at["end"]),
                    rule=self.names[rule - 1] if rule else "",
                    value=at["value"],
                    threshold=at["threshold"],
                    fault=FAULTS[fault - 1] if fault else "",
                    method=self.names[int(at["culprit"]) - 1] if at["culprit"] else "",
                    changed=changed,
                    trace=(int(at["best"]), at["probability"], at["unsteered"]) if admission.trace else None,
                )
            )
        return found
