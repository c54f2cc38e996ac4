"""Step rewards in the scheduler process: each request's new tokens are shown to the watcher, which names who ends.

A request is looked at whenever SGLang has looked for its end, and no other request is. Nothing here waits for a reward.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_MATCHED_STR

import midstep
from midstep import configuration
from midstep.watching.watched import REASON
from midstep.watching.watcher import Watcher

from .shadows import gang_of

logger = logging.getLogger("midstep")

ON_REQUEST = "_midstep_judged"  # the attribute of a Req


@dataclass(eq=False)
class Judged:
    """One request whose steps are judged.

    Args:
        ledger: what its report is made of.
        seen: how many of its tokens the watcher has seen.
    """

    key: str
    watcher: Watcher
    ledger: midstep.Ledger
    seen: int = 0


def watcher_of(scheduler: Any) -> Watcher:
    """Return a scheduler's watcher; made at its first use."""
    gang = gang_of(scheduler)
    if gang.watcher is None:
        gang.watcher = Watcher(configuration.current(), lambda: scheduler.tokenizer)
    return gang.watcher


def judged(request: Any) -> Judged | None:
    """Return what midstep keeps on `request`, a Req whose steps are judged."""
    found: Judged | None = request.__dict__.get(ON_REQUEST)
    return found


def begin(scheduler: Any, request: Any, ledger: midstep.Ledger) -> None:
    """Watch a request from its first token on, as long as its Req lives."""
    admission = ledger.admission
    if admission.watch is None:
        return
    watcher = watcher_of(scheduler)
    watcher.begin(admission.key, admission.watch)
    setattr(request, ON_REQUEST, Judged(admission.key, watcher, ledger))
    weakref.finalize(request, watcher.end, admission.key).atexit = False


def look(request: Any) -> None:
    """Show a request's new tokens to the watcher; end it where there is a verdict, unless it ends by itself."""
    one = judged(request)
    if one is None or one.key not in one.watcher:
        return
    try:
        _look(one, request)
    except Exception:
        logger.exception("midstep: the steps of request %s are not judged any more", request.rid)
        one.watcher.end(one.key)


def _look(one: Judged, request: Any) -> None:
    watcher, key = one.watcher, one.key
    watcher.poll()
    kept = len(request.output_ids) if request.finished_len is None else request.finished_len
    watcher.see(key, list(request.output_ids[one.seen : kept]))
    one.seen = kept
    if not request.finished() and watcher.ended(key) is not None:
        watcher.applied(key)
        request.finished_reason = FINISH_MATCHED_STR(matched=REASON)
        request.finished_len = len(request.output_ids)
    one.ledger.judged(watcher.news(key))
    if request.finished():
        watcher.end(key)
