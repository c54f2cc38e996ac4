"""Whether the kernels' tile and warps are well chosen: times of the one-read kernels under others, on a GPU.

    python benchmarks/tiles.py                      # all of VARIANTS
    python benchmarks/tiles.py --one TILE WARPS     # this process's own copy of the core has this tile

A tile is a constant of the core's source, so each variant runs in a process with a copy of the core that has another.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import results

VARIANTS = ((2048, 2), (2048, 4), (4096, 4), (4096, 8), (8192, 4), (8192, 8), (8192, 16))
VOCABULARY, ROWS = 151936, (1, 64, 256)
CASES = ("draw", "statistics", "fused: the draw alone", "fused: min_p", "min_p", "quadratic", "mirostat", "xtc", "edt")
MORE = ("contrast: drawn", "deepconf: confidence", "mended")
BOTH_TYPES = ("draw", "statistics")
INPUTS = 240_000_000  # bytes that the input sets of a case hold together at least: four times an H200's L2


def one(tile: int, warps: int) -> list[dict[str, Any]]:
    """Time every case in this process."""
    import cases
    import kernels
    import torch
    from triton.runtime.jit import JITFunction

    launch = JITFunction.run

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.fn.__name__.endswith("_tiles"):
            kwargs["num_warps"] = warps
        return launch(self, *args, **kwargs)

    setattr(JITFunction, "run", run)  # noqa: B010 - mypy refuses an assignment to a method
    found, made = [], cases.cases()
    for name in (*CASES, *MORE):
        for dtype in kernels.TYPES if name in BOTH_TYPES else ("float32",):
            for rows in ROWS:
                case, kind = made[name](rows, VOCABULARY, "cuda"), kernels.TYPES[dtype]
                sets = max(4, min(24, INPUTS // (rows * VOCABULARY * kind.itemsize) + 1))
                inputs = [cases.logits(rows, VOCABULARY, kind, "cuda", 7 * i + 1) for i in range(sets)]
                times = [kernels.microseconds(kernels._over(case.kernel, inputs), sets) for _ in range(2)]
                key = {"tile": tile, "warps": warps, "case": name, "dtype": dtype, "rows": rows}
                found.append({**key, "microseconds": times})
        torch.cuda.empty_cache()
    return found


def apart(tile: int, warps: int) -> list[dict[str, Any]]:
    """Time every case in a process whose core has this tile."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(results.ROOT / "plugins" / "core" / "midstep", Path(folder) / "midstep")
        device = Path(folder) / "midstep" / "device.py"
        text, count = re.subn(
            r"^TILE = tl.constexpr\(\d+\)", f"TILE = tl.constexpr({tile})", device.read_text(), flags=re.M
        )
        assert count == 1, "the core's device.py has no line that sets TILE"
        device.write_text(text)
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
        command = [sys.executable, __file__, "--one", str(tile), str(warps)]
        said = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True).stdout
    rows: list[dict[str, Any]] = json.loads(said.splitlines()[-1])
    return rows


def main() -> None:
    """Measure every variant, or say that there is no GPU."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", type=int, nargs=2, metavar=("TILE", "WARPS"))
    options = parser.parse_args()
    if not results.gpu():
        print("no GPU here: nothing is measured, nothing is published")
        return
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    import kernels

    rows: list[dict[str, Any]] = []
    for tile, warps in VARIANTS:
        rows += apart(tile, warps)
        print(f"tile {tile}, {warps} warps", flush=True)
        results.write("tiles", kernels.versions(), {"vocabulary": VOCABULARY, "bandwidths": kernels.bandwidths()}, rows)


if __name__ == "__main__":
    main()
