"""Searches many prompts at once, and writes each as soon as it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..searching import Engine, Result, derived, together
from ..searching.rewards import Rewarding
from ..searching.run import search
from .journal import Journal
from .prompts import Task


@dataclass(frozen=True)
class Plan:
    """What is done with each prompt.

    Args:
        search: its name with its parameters.
        reward: as `midstep.search` takes it.
        seed: each prompt's own is derived of it and of the prompt's id, or of its line and text.
        options: further arguments of `midstep.search`: budget, separator, sampling, methods, selector, patience.
        candidates: whether results have all answers, not only the chosen one.
        traces: the folder of the traces; None: none are written.
        failures: so many in a row end the run.
    """

    search: Mapping[str, Mapping[str, Any]]
    reward: Rewarding | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    candidates: bool = False
    traces: Path | None = None
    failures: int = 16


class GivenUpError(RuntimeError):
    """So many prompts in a row failed that no more were tried."""


async def run(
    engine: Engine,
    tasks: Sequence[Task],
    plan: Plan,
    journal: Journal,
    *,
    concurrency: int,
    told: Callable[[Mapping[str, Any]], None],
) -> None:
    """Search every prompt that is not in the journal yet.

    Args:
        engine: a driver.
        tasks: the prompts.
        plan: what is done with each.
        journal: where results go; a prompt that fails is written with its error.
        concurrency: prompts at once.
        told: called with each result that was written.

    Raises:
        GivenUpError: `plan.failures` prompts failed one after the other, with the last one's error.
    """
    left = iter([task for task in tasks if task.key not in journal.done])
    failed = 0

    async def worker() -> None:
        nonlocal failed
        for task in left:
            row = await _searched(engine, task, plan)
            journal.add(row)
            told(row)
            failed = failed + 1 if "error" in row else 0
            if failed >= plan.failures:
                raise GivenUpError(f"{failed} prompts failed in a row, the last one with: {row['error']}")

    await together(worker() for _ in range(concurrency))


async def _searched(engine: Engine, task: Task, plan: Plan) -> dict[str, Any]:
    seed = derived(plan.seed, *task.key)
    known = {**task.row, "line": task.line, "digest": task.digest, "seed": seed}
    try:
        result = await search(
            engine,
            task.prompt,
            reward=plan.reward,
            seed=seed,
            question=task.row.get("question"),
            **{**plan.options, **plan.search},
        )
    except Exception as error:  # the engine's, the reward's or a method's: this prompt's loss, not the run's
        return {**known, "error": f"{type(error).__name__}: {error}"}
    trace = {} if plan.traces is None else {"trace": str(_kept(plan.traces, task, result))}
    return {**known, **_told(result, plan.candidates), **trace}


def _told(result: Result, candidates: bool) -> dict[str, Any]:
    best = result.best
    row: dict[str, Any] = {"text": best.text, "score": best.score, "weights": list(result.weights)}
    row |= {"spent": asdict(result.spent), "seconds": round(result.trace["seconds"], 3)}
    if candidates:
        row["candidates"] = [
            {"text": c.text, "scores": list(c.scores), "score": c.score, "logprob": c.logprob, "ended": c.ended}
            for c in result.candidates
        ]
    return row


def _kept(folder: Path, task: Task, result: Result) -> Path:
    """Write a trace, whole or not at all, and return where it is."""
    path = folder / f"{file_name(task)}.json"
    beside = path.with_name(f".{path.name}.new")
    named = {"id": task.row["id"]} if "id" in task.row else {}
    beside.write_text(json.dumps({**named, "line": task.line, **result.trace}), encoding="utf-8")
    os.replace(beside, path)
    return path


def file_name(task: Task) -> str:
    """Return a name that a file may have, another one for each prompt."""
    if "id" not in task.row:
        return f"line-{task.line:06}"
    text = quote(str(task.row["id"]), safe=" ")
    # a number and a text, or letters of two cases on a disk that knows one, must not meet
    short = text if isinstance(task.row["id"], str) and text == text.lower() and len(text) < 100 else ""
    return f"id-{short}" if short else f"id-{text[:80]}-{blake2b(repr(task.key).encode(), digest_size=4).hexdigest()}"
