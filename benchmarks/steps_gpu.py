"""Where a decode step's time goes on a GPU: the device's, the host's, and what runs beside the model's CUDA graph.

    python benchmarks/steps_gpu.py [--only USE ...] [--steps 20]

The engine of engine_gpu.py in this process, 64 requests. Each use runs twice: once for the time of its middle steps and
the processor time that they take here, once under torch.profiler for what the device does. Where a step lasts longer
than the device is busy, the device waits for the host.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_gpu
import results
from engine_gpu import PLAIN, Use

TOKENS, FIRST = 64, 20  # of each request; the middle steps begin at the latter
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
USES = ("min_p", "min_p, greedy", "min_p, p_less, top_nsigma")
Event = Mapping[str, Any]


def run(engine: Any, name: str, use: Use, steps: int, trace: Path | None = None) -> tuple[list[float], float]:
    """Run one batch to its end.

    Returns:
        The seconds of each of the middle steps; and the processor seconds of this process per step.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    count, began, spent = 0, 0.0, 0.0
    profiler: Any = None
    walls: list[float] = []
    made = engine_gpu.begin(engine, name, use, TOKENS)
    core = engine.llm_engine
    while core.has_unfinished_requests():
        middle = min(made.values()) >= FIRST and count < steps
        if middle and not count:
            if trace is not None:
                torch.cuda.synchronize()
                profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
                profiler.start()
            began = time.process_time()
        start = time.perf_counter()
        for output in core.step():
            made[output.request_id] += len(output.outputs[0].token_ids)
        if middle:
            walls.append(time.perf_counter() - start)
            count += 1
        if middle and count == steps:
            spent = (time.process_time() - began) / steps
            if profiler is not None:
                torch.cuda.synchronize()
                profiler.stop()
    if profiler is not None:
        profiler.export_chrome_trace(str(trace))
    assert set(made.values()) == {TOKENS}, f"{name}: {sorted(set(made.values()))} tokens instead of {TOKENS}"
    return walls, spent


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the time that (start, end) pairs cover together."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def read(events: Sequence[Event], steps: int) -> dict[str, Any]:
    """Return what a Chrome trace of so many steps says of one step, in microseconds."""
    timed = [event for event in events if event.get("ph") == "X"]
    device = [event for event in timed if event.get("cat") in ON_DEVICE]
    calls = [event for event in timed if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    graphs = {event["args"].get("correlation") for event in calls if "GraphLaunch" in event["name"]}
    outside: dict[str, list[float]] = collections.defaultdict(list)
    for event in device:
        if event["args"].get("correlation") not in graphs:
            outside[event["name"]].append(event["dur"])
    return {
        "busy": covered((event["ts"], event["ts"] + event["dur"]) for event in device) / steps,
        "outside": {name: [len(each) / steps, sum(each) / steps] for name, each in outside.items()},
    }


def measure(engine: Any, name: str, use: Use, steps: int, folder: Path) -> dict[str, Any]:
    """Return one row of one use."""
    run(engine, f"{name} first", use, steps)
    walls, spent = run(engine, f"{name} bare", use, steps)
    trace = folder / "trace.json"
    run(engine, f"{name} traced", use, steps, trace)
    found = read(json.loads(trace.read_text())["traceEvents"], steps)
    return {"use": name, "step": statistics.median(walls) * 1e6, "host": spent * 1e6, **found}


def main() -> None:
    """Measure plain requests and some with methods, or say that there is no GPU."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", metavar="USE", default=USES, help="beside plain ones")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    if not results.gpu():
        print("no GPU here: nothing is measured, nothing is published")
        return
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the profiler sees this process
    known = engine_gpu.uses()
    uses = {"plain": PLAIN, "plain, greedy": replace(PLAIN, temperature=0.0)} | {
        name: known[name] for name in options.only
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_gpu.start(Path(folder), eager=False)
        about = engine_gpu.configuration(engine, TOKENS) | {"steps": options.steps}
        for name, use in uses.items():
            rows.append(measure(engine, name, use, options.steps, Path(folder)))
            print({key: value for key, value in rows[-1].items() if key != "outside"}, flush=True)
            results.write("steps_gpu", {"gpu": torch.cuda.get_device_name(), **engine_gpu.versions()}, about, rows)


if __name__ == "__main__":
    main()
