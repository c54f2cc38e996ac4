"""How fast midstep's kernels are on this GPU, beside torch, vLLM's and FlashInfer's.

    python benchmarks/kernels.py [--vocabularies 151936,49152] [--types ...] [--rows ...] [--only NAME ...]
                                 [--no-compile] [--seconds 540]
    TRITON_INTERPRET=1 python benchmarks/kernels.py --smoke      # without a GPU: every case once, nothing is timed

In one process: the bandwidth of a copy and of a read first, then for every case the check against its definition, then
the time. A CUDA graph holds one call for each of several input sets, together larger than four second-level caches;
every version is timed twice, in turn, and both medians are kept. What was measured before is kept beside it, so that
several short runs make one table.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cases
import results
import torch
from cases import Case, Found, logits, unlike
from torch import Tensor

VOCABULARIES = (151936, 49152)
ROWS = (1, 8, 32, 64, 128, 256, 512)
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHECKED = 32  # rows; the kernels give a row the same in any batch
COMPILED = (8, 128)  # rows at which torch.compile is tried, unless --no-compile: it takes long
REPLAYS = 30  # at most; 5 of what takes longer than LONGEST
LONGEST = 0.25  # seconds
SMOKE = (3, 1000)  # rows and vocabulary
DISTRIBUTIONS = ("torch", "triton", "vllm", "flashinfer-python")
# Top-k and top-p of the cases that have no rule.
OWN_CUTS = {"fused: top-p": (0, 0.95), "fused: top-k, top-p": (20, 0.95)}
Run = Callable[[Tensor], Any]


def microseconds(run: Callable[[int], Any], sets: int) -> float:
    """Return the median time of a call inside a CUDA graph that calls `run` with 0 .. sets - 1."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(sets):
            run(i)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(sets):
            run(i)
    graph.replay()
    torch.cuda.synchronize()
    until = time.perf_counter() + LONGEST
    for _ in range(2):
        graph.replay()
    times: list[float] = []
    while len(times) < REPLAYS and (len(times) < 5 or time.perf_counter() < until):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / sets)
    return statistics.median(times)


def bandwidths() -> dict[str, float]:
    """Return what a copy of 1 GiB and a sum over 1 GiB reach, in GB/s."""
    numbers = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(numbers)
    # not copy_, which is a copy engine's node in a graph: on an H200 that reaches two thirds of what a kernel does
    copied = microseconds(lambda i: torch.add(numbers, 1.0, out=target), 4)
    total = torch.empty((), device="cuda")
    read = microseconds(lambda i: torch.sum(numbers, dim=0, out=total), 4)
    return {"copy": 2 * numbers.nbytes / copied / 1e3, "read": numbers.nbytes / read / 1e3}


def peers(name: str, case: Case, rows: int, compiled: bool) -> dict[str, Run]:
    """Return what does the same, by name; a peer that is not installed is left out."""
    found: dict[str, Run] = {"midstep": case.kernel, "torch": case.definition}
    if compiled:
        torch._dynamo.reset()  # else, after eight cases made by one function, nothing is compiled and nothing says so
        found["torch.compile"] = torch.compile(case.definition, dynamic=False)
    if name == "draw":
        found |= _vllm_draw(rows) | _flashinfer_draw()
    if name == "min_p":
        found |= _vllm_min_p(rows)
    if name == "fused: min_p":
        found |= _flashinfer_min_p()
    if name in OWN_CUTS:
        found |= _vllm_cuts(rows, *OWN_CUTS[name]) | _flashinfer_cuts(*OWN_CUTS[name])
    return found


def _vllm_draw(rows: int) -> dict[str, Run]:
    try:
        from vllm.v1.worker.gpu.sample.gumbel import gumbel_sample
    except Exception:
        return {}
    index = torch.arange(rows, dtype=torch.int32, device="cuda")
    heat, (seed, position, _) = torch.ones(rows, device="cuda"), cases.draws(rows, "cuda")
    how = {"apply_temperature": False, "is_drafting": False}
    return {"vLLM": lambda x: gumbel_sample(x, index, heat, seed, position, **how)}


def _vllm_min_p(rows: int) -> dict[str, Run]:
    try:
        from vllm.v1.worker.gpu.sample.min_p import apply_min_p
    except Exception:
        return {}
    index = torch.arange(rows, dtype=torch.int32, device="cuda")
    p = cases.column(rows, "cuda", 0.05, 0.1, 0.2)
    # in place: from the second replay on it finds its own result, which takes it as long
    return {"vLLM": lambda x: apply_min_p(x, index, p)}


def _vllm_cuts(rows: int, top_k: int, top_p: float) -> dict[str, Run]:
    try:
        from vllm.v1.sample.ops.topk_topp_triton import apply_top_k_top_p_triton

        draw = _vllm_draw(rows)["vLLM"]
    except Exception:
        return {}
    k = torch.full((rows,), top_k, dtype=torch.int32, device="cuda") if top_k else None
    p = torch.full((rows,), top_p, device="cuda")
    # it masks in place, so every call gets a copy
    return {"vLLM, with a copy": lambda x: draw(apply_top_k_top_p_triton(x.float().clone(), k, p))}


def _flashinfer_cuts(top_k: int, top_p: float) -> dict[str, Run]:
    try:
        from flashinfer.sampling import top_k_top_p_sampling_from_logits, top_p_sampling_from_probs
    except Exception:
        return {}
    if not top_k:
        return {"FlashInfer": lambda x: top_p_sampling_from_probs(x.float().softmax(-1), top_p, deterministic=True)}
    return {"FlashInfer": lambda x: top_k_top_p_sampling_from_logits(x.float(), top_k, top_p, deterministic=True)}


def _flashinfer_draw() -> dict[str, Run]:
    try:
        from flashinfer.sampling import sampling_from_logits
    except Exception:
        return {}
    return {
        "FlashInfer": lambda x: sampling_from_logits(x.float(), deterministic=False),
        "FlashInfer, deterministic": lambda x: sampling_from_logits(x.float(), deterministic=True),
    }


def _flashinfer_min_p() -> dict[str, Run]:
    try:
        from flashinfer.sampling import min_p_sampling_from_probs
    except Exception:
        return {}
    return {"FlashInfer": lambda x: min_p_sampling_from_probs(x.float().softmax(-1), 0.1, deterministic=True)}


def measure(
    name: str, case: Case, rows: int, vocabulary: int, dtype: torch.dtype, read: float, compiled: bool
) -> list[dict[str, Any]]:
    """Check one case, then time it and its peers; a row for each."""
    bytes_ = rows * vocabulary * dtype.itemsize * case.logits + case.reads
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    sets = max(4, min(64, 4 * cache // max(rows * vocabulary * dtype.itemsize, 1) + 1))
    inputs = [logits(rows, vocabulary, dtype, "cuda", 7 * i + 1) for i in range(sets)]
    check(name, case, inputs[0])
    runs = peers(name, case, rows, compiled)
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for _ in range(2):  # in turn
        for who, run in runs.items():
            if who in failed:
                continue
            try:
                times.setdefault(who, []).append(microseconds(_over(run, inputs), sets))
            except Exception as error:  # a peer that cannot be captured
                failed[who] = f"{type(error).__name__}: {error}"[:200]
                torch.cuda.synchronize()
    if "midstep" in failed:
        raise RuntimeError(f"{name}: {failed['midstep']}")
    key = _cell(name, rows, vocabulary, dtype)
    floor = bytes_ / read / 1e3
    return [key | {"who": who, "microseconds": times.get(who), "floor": floor, "why": failed.get(who)} for who in runs]


def _cell(name: str, rows: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Any]:
    return {"case": name, "rows": rows, "vocabulary": vocabulary, "dtype": str(dtype).removeprefix("torch.")}


def _over(run: Run, inputs: list[Tensor]) -> Callable[[int], Any]:
    return lambda i: run(inputs[i])


def check(name: str, case: Case, x: Tensor) -> None:
    """Compare the first rows with the definition.

    Raises:
        AssertionError: they are not alike.
    """
    whole: Found = case.kernel(x)
    few = x[:CHECKED]
    first = whole[: len(few)] if isinstance(whole, Tensor) else tuple(part[: len(few)] for part in whole)
    wrong = unlike(first, case.definition(few))
    assert wrong is None, f"{name}, {tuple(x.shape)} {x.dtype}: {wrong}"


def smoke() -> None:
    """Call and check every case once, in Triton's interpreter or on a GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, vocabulary = SMOKE
    for name in without_case():
        print(f"no case: {name}")
    for dtype in TYPES.values():
        for name, make in cases.cases().items():
            began = time.perf_counter()
            check(name, make(rows, vocabulary, device), logits(rows, vocabulary, dtype, device, 1))
            print(f"{name}, {dtype}: as its definition, {time.perf_counter() - began:.1f} s", flush=True)


def without_case() -> list[str]:
    """Return the kernels of methods, as their `operation` names them, that no case calls."""
    text = (results.HERE / "cases.py").read_text()
    found = []
    for file in results.ROOT.glob("*/**/midstep_*/__init__.py"):
        for module, name in re.findall(r'"(midstep_\w+)\.kernel:(\w+)"', file.read_text()):
            calls = rf"(kernel|{module.removeprefix('midstep_')}|dynamic)\.{name}\b"
            if f"{module}" not in text or (not name.endswith("rule") and not re.search(calls, text)):
                found.append(f"{module}.kernel:{name}")
    return sorted(set(found))


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    found = {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def kept(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what earlier runs measured of the same commit on the same machine."""
    before = results.read("kernels")
    same = before is not None and (before["commit"], before["versions"]) == (results.commit(), versions())
    rows: list[dict[str, Any]] = before["measured"] if before is not None and same else []
    if same and before is not None:
        configuration["bandwidths_before"] = before["configuration"]["bandwidths"]
    return rows


def main() -> None:
    """Measure what was asked for and keep it, or say that there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--vocabularies", default=",".join(map(str, VOCABULARIES)))
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes long")
    parser.add_argument("--seconds", type=float, default=540, help="begin no case after so many seconds")
    parser.add_argument("--smoke", action="store_true", help="call and check every case once; publish nothing")
    options = parser.parse_args()
    if options.smoke:
        smoke()
        return
    if os.environ.get("TRITON_INTERPRET") == "1" or not results.gpu():
        print("no GPU here: nothing is measured, nothing is published; --smoke calls every case once")
        return
    began = time.perf_counter()
    speed = bandwidths()
    configuration: dict[str, Any] = {"bandwidths": speed, "replays": REPLAYS, "checked_rows": CHECKED}
    configuration["seconds"] = LONGEST
    measured = kept(configuration)
    results.end_whole()
    cells = (
        (vocabulary, dtype, rows, name)
        for vocabulary in map(int, options.vocabularies.split(","))
        for dtype in options.types.split(",")
        for rows in map(int, options.rows.split(","))
        for name in options.only or cases.cases()
    )
    failed = 0
    try:
        for vocabulary, dtype, rows, name in cells:
            if time.perf_counter() - began > options.seconds:
                print("out of time; ask for what is missing with --vocabularies, --types, --rows, --only")
                break
            cell, at = (name, rows, vocabulary, TYPES[dtype]), time.perf_counter()
            try:
                case = cases.cases()[name](rows, vocabulary, "cuda")
                new = measure(name, case, *cell[1:], speed["read"], rows in COMPILED and not options.no_compile)
                torch.cuda.synchronize()
            except Exception as error:  # the other cases may be right
                why = f"{type(error).__name__}: {error}"
                new = [_cell(*cell) | {"who": "midstep", "microseconds": None, "floor": None, "why": why[:500]}]
                failed += 1
                print(f"FAILED: {name}, {rows} x {vocabulary} {dtype}: {why}", flush=True)
            measured = [row for row in measured if not any(_key(row) == _key(one) for one in new)] + new
            times = [f"{row['who']} {min(row['microseconds'] or [0]):.1f}" for row in new]
            spent = time.perf_counter() - at
            print(f"{name} {rows} x {vocabulary} {dtype}: {', '.join(times)}, in {spent:.1f} s", flush=True)
    finally:
        _keep(configuration, measured)
    if failed:
        raise SystemExit(f"{failed} cases failed")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["case"], row["rows"], row["vocabulary"], row["dtype"], row["who"]


def _keep(configuration: dict[str, Any], measured: list[dict[str, Any]]) -> None:
    results.write("kernels", versions(), configuration, measured)


if __name__ == "__main__":
    main()
