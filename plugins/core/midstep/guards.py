"""Calls methods so that none of them can break a batch.

In today's engines one exception in a plugin ends the server, and a result of the wrong shape silently corrupts every
request of the batch. What the host can see is caught here; what only the device can see (NaN, an empty row) is checked
and mended there.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from .operation import operation
from .rows import Ragged, Rows

logger = logging.getLogger("midstep")

FAULTS = ("exception", "nan", "empty", "shape", "dtype", "masked", "state", "history", "slow", "companion")
# Of a row: 0 for none, else 1 + an index.
NAN, EMPTY, MASKED, STATE, HISTORY, COMPANION = (
    1 + FAULTS.index(name) for name in ("nan", "empty", "masked", "state", "history", "companion")
)
Call = Callable[[Tensor, Rows], Mapping[str, Tensor]]


class WrongResultError(Exception):
    """A method returned something that its kind does not allow."""

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(text)
        self.fault = fault


@dataclass(frozen=True)
class Outcome:
    """What a guarded call gave: its tensors, and a fault per row.

    Args:
        fault: [R] int64, 0 for none, else 1 + its index in FAULTS; None where no row is at fault.
    """

    results: Mapping[str, Tensor]
    fault: Tensor | None = None


class Guard:
    """Calls methods, times them, and remembers which are too slow to be called again.

    Args:
        call_seconds: a longer call is slow.
        slow_calls: after so many slow calls a method is no longer called.
    """

    def __init__(self, call_seconds: float, slow_calls: int) -> None:
        self.call_seconds = call_seconds
        self.slow_calls = slow_calls
        self.slow: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()

    def call(self, name: str, run: Call, logits: Tensor, rows: Rows, fallback: Mapping[str, Tensor]) -> Outcome:
        """Run one method over its rows.

        Args:
            run: the method; returns named tensors like those of `fallback`.
            fallback: what stands for the result of a row that failed; each [R, ...].
        """
        count = len(logits)
        if self.slow[name] >= self.slow_calls:
            return Outcome(fallback, self._all(name, "slow", rows, None))
        started = time.perf_counter()
        try:
            results = _checked(run(logits.clone(), _fresh(rows, fallback)), fallback)
            fault = None
        except Exception as error:  # a stranger's code: whatever it raises, the engine must live
            if count == 1:
                return Outcome(fallback, self._all(name, _fault(error), rows, error))
            alone = [
                self.call(name, run, logits[i : i + 1], take(rows, i), {k: v[i : i + 1] for k, v in fallback.items()})
                for i in range(count)
            ]
            results = {k: torch.cat([o.results[k] for o in alone]) for k in fallback}
            faults = [torch.zeros_like(rows.position[:1]) if o.fault is None else o.fault for o in alone]
            fault = torch.cat(faults)
        self._time(name, time.perf_counter() - started)
        return Outcome(results, fault)

    def _time(self, name: str, seconds: float) -> None:
        if seconds > self.call_seconds:
            self.slow[name] += 1
            self.faults[name, "slow"] += 1
            logger.warning(
                "%s took %.2f s in one call; allowed: %.2f s (limits.call_seconds)", name, seconds, self.call_seconds
            )

    def _all(self, name: str, fault: str, rows: Rows, error: Exception | None) -> Tensor:
        self.faults[name, fault] += len(rows.position)
        if self.faults[name, fault] == len(rows.position):  # the first of its kind; more would flood the log
            logger.error("%s failed (%s); its rows end or go on without it", name, fault, exc_info=error)
        return torch.full_like(rows.position, 1 + FAULTS.index(fault))


def take(rows: Rows, i: int) -> Rows:
    """Return row `i` of `rows` alone."""
    one = slice(i, i + 1)

    def history() -> Ragged:
        ids, lengths = rows.history()
        return Ragged(ids[one], lengths[one])

    return replace(
        rows,
        params=SimpleNamespace(**{k: v[one] for k, v in vars(rows.params).items()}),
        position=rows.position[one],
        seed=rows.seed[one],
        sampled=rows.sampled[one],
        state={k: v[one] for k, v in rows.state.items()},
        companions={k: v[one] for k, v in rows.companions.items()},
        ids={k: Ragged(v.ids[one], v.lengths[one]) for k, v in rows.ids.items()},
        history=history,
    )


def _fresh(rows: Rows, fallback: Mapping[str, Tensor]) -> Rows:
    """Return `rows` with a state of their own: a method that fails half-way must leave none of it behind."""
    return replace(rows, state={name: fallback[f"state.{name}"].clone() for name in rows.state})


def _mended(logits: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return processed logits with bad rows put back as they were `before`, and a fault per row.

    A token that was masked stays masked whatever the method wrote there. Nothing here makes the host wait.

    Args:
        logits: [R, V] float32, and `before` alike.

    Returns:
        [R, V] float32; and [R] int64, 0 or 1 + an index in FAULTS.
    """
    logits = logits.masked_fill(before.isneginf(), -torch.inf)
    nan = (logits.isnan() | logits.isposinf()).any(-1)
    empty = logits.isneginf().all(-1) & ~before.isneginf().all(-1)
    fault = torch.where(nan, NAN, torch.where(empty, EMPTY, 0))
    return torch.where((fault > 0)[:, None], before, logits), fault


mended = operation(_mended, "midstep.mending:mended")


def _kept(logits: Tensor, keep: Tensor, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits without the tokens that a rule did not keep; a row that would be empty is left as it is.

    Args:
        logits: [R, V] float32.
        keep: [R, V] bool.
        token: [R] int64.

    Returns:
        [R, V] float32; which rows it would have left nothing of, [R] bool; and which rows' `token` it took, [R] bool.
    """
    finite = ~logits.isneginf()
    keep = keep & finite
    empty = ~keep.any(-1) & finite.any(-1)
    keep = torch.where(empty[:, None], finite, keep)
    taken = (finite & ~keep).gather(1, token[:, None])[:, 0]
    return logits.masked_fill(~keep, -torch.inf), empty, taken


kept = operation(_kept, "midstep.mending:kept")


def _checked(results: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for key, expected in like.items():
        found = results[key]
        if not isinstance(found, Tensor) or found.shape != expected.shape:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise WrongResultError("shape", f"{key} is {shape}; it must be {list(expected.shape)}")
        if found.dtype != expected.dtype:
            raise WrongResultError("dtype", f"{key} is {found.dtype}; it must be {expected.dtype}")
        if found.device != expected.device:
            raise WrongResultError("dtype", f"{key} is on {found.device}; it must be on {expected.device}")
    return results


def _fault(error: Exception) -> str:
    return error.fault if isinstance(error, WrongResultError) else "exception"
