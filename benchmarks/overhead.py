"""What midstep costs a real engine on this machine's processor.

    python3.11 benchmarks/overhead.py vllm [clocks] [small] [real]      # or sglang; about 10 minutes on two cores

Two measurements. `clocks`: the microseconds that midstep's own functions take per step, by clocks around them in the
engine's processes. `small` and `real`: the processor seconds of whole requests, of all the engine's processes, plain
and with a method. Both take turns in one engine: two processes of one engine differ for their whole life by more than
midstep costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

import clock  # noqa: E402
import results  # noqa: E402

SIZES = (1, 8, 32)
TOKENS = 12
REPETITIONS = 3  # of each clocked run
PAIRS = 8
REAL_SIZES = (8,)
PARTS = ("clocks", "small", "real")


def asks(**methods: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's entry, as midstep.request() makes it."""
    return {"midstep": json.dumps({"methods": methods})}


MIN_P = {"p": 0.1}
THREE = asks(min_p=MIN_P, top_nsigma={"n": 1.0}, typical={"mass": 0.95})
# What a request asks for, and at which temperature. The stop never stops: nothing is as low as 0.
USES: Mapping[str, tuple[float, dict[str, Any] | None]] = {
    "installed, unused": (1.0, None),
    "min_p, greedy": (0.0, asks(min_p=MIN_P)),
    "min_p, sampled": (1.0, asks(min_p=MIN_P)),
    "deepconf, greedy": (0.0, asks(deepconf={"threshold": 0.0, "window": 16})),
    "three rules, sampled": (1.0, THREE),
}
# Paired with plain requests at the same temperature.
PAIRED = ("min_p, greedy", "min_p, sampled", "deepconf, greedy", "three rules, sampled")


@dataclass(frozen=True)
class Worker:
    """A running engine."""

    process: subprocess.Popen[str]
    first: dict[str, Any]

    def order(self, requests: int, temperature: float, extra: Any, tokens: int = TOKENS) -> dict[str, Any]:
        """Run requests and return what they took."""
        found = self.together([part(requests, tokens, extra)], temperature)
        del found["seconds"]
        return found

    def together(self, parts: Sequence[Mapping[str, Any]], temperature: float = 0.0) -> dict[str, Any]:
        """Run several parts in one batch and return what they took, `seconds` per request of each."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"parts": parts, "temperature": temperature}) + "\n")
        self.process.stdin.flush()
        return _answer(self.process)


def part(requests: int, tokens: int, extra: Any = None, adapter: str | None = None) -> dict[str, Any]:
    """Return one part of an order: so many requests alike."""
    return {"requests": requests, "tokens": tokens, "extra": extra, "adapter": adapter}


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"an engine ended ({process.wait()}); its log is above")
    found: dict[str, Any] = json.loads(line)
    return found


@contextmanager
def worker(engine: str, model: str, variables: Mapping[str, str], *more: str) -> Iterator[Worker]:
    """Start an engine, with `more` for its worker, and end it."""
    from ground import layers

    shell = {**layers.variables(engine), "VLLM_ENABLE_V1_MULTIPROCESSING": "0", **variables}
    process = subprocess.Popen(
        [layers.make(engine), HERE / "worker.py", engine, model, *more],
        env=shell,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Worker(process, _answer(process))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


def clocked(engine: str, model: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the versions, and the clocks of every use at every size."""
    with tempfile.TemporaryDirectory() as folder:
        clocks = Path(folder) / "clocks"
        clocks.mkdir()
        variables = {clock.FOLDER: str(clocks), **_plugin(Path(folder))}
        with worker(engine, model, variables) as running:
            running.order(SIZES[-1], *USES["min_p, sampled"])  # warms up
            rows = []
            for requests in SIZES:
                for name, (temperature, extra) in USES.items():
                    say(f"{engine}, clocks: {requests} x {name}")
                    for _ in range(REPETITIONS):
                        found = running.order(requests, temperature, extra)
                        row = {"what": "clocks", "use": name, "requests": requests, "clocks": found["clocks"]}
                        rows.append(row | {"costs": running.first["costs"]})
            return running.first["versions"], rows


def _plugin(folder: Path) -> dict[str, str]:
    """Return what makes SGLang load our clocks, in each of its processes, where it would load midstep."""
    info = folder / "midstep_clock-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: midstep-clock\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[sglang.srt.plugins]\nmidstep_clock = clock:sglang\n")
    return {"PYTHONPATH": f"{folder}:{HERE}", "SGLANG_PLUGINS": "midstep_clock"}


def paired(
    engine: str, model: str, name: str, sizes: tuple[int, ...]
) -> Iterator[tuple[dict[str, str], list[dict[str, Any]]]]:
    """Yield the versions and, size by size, the processor seconds of every use, and of the same requests without it."""
    with worker(engine, model, {}) as running:
        for requests in sizes:
            rows = []
            running.order(requests, *USES["min_p, sampled"])  # warms up
            for round_ in range(PAIRS):
                say(f"{engine}, {name} model, pairs: {requests} requests, round {round_ + 1} of {PAIRS}")
                for use in PAIRED:
                    heat, extra = USES[use]
                    turns = [("off", None), ("on", extra)]
                    row = {"what": "pairs", "model": name, "use": use, "requests": requests, "round": round_}
                    for which, asked in turns if round_ % 2 else reversed(turns):
                        found = running.order(requests, heat, asked)
                        row |= {f"{which}_{key}": value for key, value in found.items()}
                    rows.append(row)
            yield running.first["versions"], rows


def one_engine(
    name: str,
    doc: str,
    measure: Callable[[str, str, int], tuple[dict[str, str], list[dict[str, Any]]]],
    rounds: int,
    configuration: Mapping[str, Any],
) -> None:
    """Measure the engine that the command line names with the small model, and keep the results.

    Args:
        name: of the results, before the engine's.
        doc: its first line is the command's help.
        measure: (engine, model, rounds) to the versions and the rows.
        configuration: what is kept beside the model's and the threads'.
    """
    from ground.model import paths

    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("engine", choices=["vllm", "sglang"])
    parser.add_argument("--smoke", action="store_true", help="one round, shown and not kept")
    options = parser.parse_args()
    versions, rows = measure(options.engine, str(paths().small), 1 if options.smoke else rounds)
    if options.smoke:
        print(*rows, sep="\n")
        return
    known = {"model": "30 layers, 1,024 tokens, float32", "threads": 1, **configuration}
    print(results.write(f"{name}_{options.engine}", versions, known, rows))


def say(text: str) -> None:
    """Say what is done now."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    """Measure one engine, and keep the results."""
    from ground.model import paths

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", choices=["vllm", "sglang"])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all, if none is named")
    options = parser.parse_args()
    engine, parts = options.engine, options.parts or PARTS
    models = {"small": str(paths().small), "real": str(paths().real)}
    if "clocks" in parts:
        keep(engine, "clocks", *clocked(engine, models["small"]))
    for name, sizes in (("small", SIZES[::-1]), ("real", REAL_SIZES)):
        if name in parts:
            rows = []
            for versions, more in paired(engine, models[name], name, sizes):
                rows += more
                keep(engine, name, versions, rows)


def keep(engine: str, part: str, versions: Mapping[str, str], rows: Sequence[dict[str, Any]]) -> None:
    """Keep the rows of one part beside those of the others."""
    before = results.read(f"overhead_{engine}")
    measured = [row for row in (before["measured"] if before else []) if row["part"] != part]
    made = (before["configuration"]["parts"] if before else {}) | {part: results.commit()}
    configuration = {
        "engine": engine,
        "models": {"small": "30 layers, 1,024 tokens, float32", "real": "SmolLM2-135M, 49,152 tokens, float32"},
        "parts": made,  # and the commit that each was measured at
        "tokens": TOKENS,
        "threads": 1,
        "uses": USES,
    }
    measured += [{"part": part, **row} for row in rows]
    print(results.write(f"overhead_{engine}", versions, configuration, measured), flush=True)


if __name__ == "__main__":
    main()
