"""Clocks around midstep's own functions: how long each ran, without what it called of the engine or of midstep.

The totals of every process of an engine lie in one folder, in a mapped file per process, so that reading them asks
nothing of the engine. Nothing of an engine is replaced: where a function of midstep's calls one of the engine's, either
that is passed to it as an argument, or a base class between the two stops the clock.
"""

from __future__ import annotations

import functools
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

FOLDER = "BENCHMARK_CLOCK"  # the variable that says where the files lie
# What is added up: of each step, in the pipeline and outside of it; of each request.
PLACES = ("adapter", "pipeline", "request", "step")
TRIALS = 20000


class _Inside(threading.local):
    """The time that inner clocks of this thread have already counted."""

    ns = 0


class Clock:
    """The clocks of one process."""

    def __init__(self, folder: str) -> None:
        size = 8 * 3 * len(PLACES)
        path = Path(folder) / str(os.getpid())
        path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        # Per place: nanoseconds, calls, and pauses within.
        self._totals = memoryview(self._map).cast("q")
        self._inside = _Inside()

    def timed(self, function: Callable[..., Any], place: str) -> Callable[..., Any]:
        """Return `function`, its own time added to a place."""
        at, totals, inside = 3 * PLACES.index(place), self._totals, self._inside

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            outer, inside.ns = inside.ns, 0
            start = perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                spent = perf_counter_ns() - start
                totals[at] += spent - inside.ns
                totals[at + 1] += 1
                inside.ns = outer + spent

        return run

    def paused(self, function: Callable[..., Any], place: str) -> Callable[..., Any]:
        """Return `function` of the engine's, its time taken off the clock of `place` that it is called in."""
        at, totals, inside = 3 * PLACES.index(place), self._totals, self._inside

        def run(*args: Any, **kwargs: Any) -> Any:
            outer = inside.ns
            start = perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                totals[at + 2] += 1
                inside.ns = outer + perf_counter_ns() - start

        return run

    def around(self, function: Callable[..., Any], place: str) -> Callable[..., Any]:
        """Return `function`, whose first argument is what it stands around, timed without that."""
        timed = self.timed(function, place)

        @functools.wraps(function)
        def run(original: Any, *args: Any, **kwargs: Any) -> Any:
            return timed(self.paused(original, place), *args, **kwargs)

        return run

    def put(self, owner: Any, names: str, place: str, how: str = "timed") -> None:
        """Put clocks on attributes of a module or class of midstep's."""
        for name in names.split():
            setattr(owner, name, getattr(self, how)(getattr(owner, name), place))

    def costs(self) -> tuple[float, float]:
        """Return the nanoseconds that one clock and one pause add to their place; leaves the totals as they were."""
        kept = list(self._totals)

        def nothing() -> None:
            pass

        def cost(function: Callable[..., Any]) -> float:
            before = self._totals[0]
            for _ in range(TRIALS):
                function()
            return (self._totals[0] - before) / TRIALS

        own = cost(self.timed(nothing, "adapter"))
        pause = cost(self.timed(self.paused(nothing, "adapter"), "adapter")) - own
        for i, value in enumerate(kept):
            self._totals[i] = value
        return own, pause


def totals(folder: str) -> dict[str, tuple[int, int, int]]:
    """Return nanoseconds, calls and pauses by place, of all processes."""
    sums = [0] * (3 * len(PLACES))
    for path in Path(folder).iterdir():
        values = memoryview(path.read_bytes()).cast("q")
        sums = [a + b for a, b in zip(sums, values, strict=True)]
    return {name: (sums[3 * i], sums[3 * i + 1], sums[3 * i + 2]) for i, name in enumerate(PLACES)}


def vllm() -> Clock:
    """Put clocks on midstep_vllm, before vLLM loads its plugins."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    from midstep.pipeline import Pipeline
    from midstep_vllm import admission, client, enabling, lockstep, processor, scheduler

    clock = Clock(os.environ[FOLDER])
    clock.put(enabling, "execute_model sample_tokens", "adapter", "around")
    clock.put(client, "process_outputs", "adapter", "around")
    clock.put(client, "add_request make_request_output", "request", "around")
    clock.put(admission, "process_inputs", "request", "around")
    clock.put(processor.LogitsProcessor, "update_state is_argmax_invariant", "adapter")
    clock.put(processor.LogitsProcessor, "apply", "step")  # the adapter's; one call a step
    clock.put(Pipeline, "run", "pipeline")

    class Between(AsyncScheduler):  # type: ignore[misc]
        """Stops the clock where midstep's scheduler calls vLLM's."""

        update_from_output = clock.paused(AsyncScheduler.update_from_output, "adapter")
        _update_request_with_output = clock.paused(AsyncScheduler._update_request_with_output, "adapter")

    lockstep.Lockstep.__bases__ = (Between,)
    clock.put(scheduler.Scheduler, "update_from_output _update_request_with_output", "adapter")
    return clock


def sglang() -> None:
    """Be SGLang's plugin in midstep's place: put clocks on midstep_sglang, then let it register as ever."""
    from sglang.srt.layers import sampler as engine

    import midstep_sglang
    from midstep.pipeline import Pipeline
    from midstep_sglang import answers, channel, gate, intake, sampler, steered

    clock = Clock(os.environ[FOLDER])
    clock.put(channel, "decide finish", "adapter")
    clock.put(channel.Told, "consume", "adapter")
    clock.put(channel.Streamer, "build_additional_customized_info", "adapter")
    clock.put(steered, "begun filtered merged copied", "adapter")
    clock.put(answers, "unwrap", "adapter", "around")
    clock.put(gate, "stamp", "request")
    clock.put(intake, "take", "request")
    clock.put(Pipeline, "run", "pipeline")

    class Between(engine.Sampler):  # type: ignore[misc]
        """Stops the clock where midstep's sampler calls SGLang's."""

        forward = clock.paused(engine.Sampler.forward, "step")

    sampler.Sampler.__bases__ = (Between,)
    clock.put(sampler.Sampler, "forward", "step")
    midstep_sglang.register()
