"""The core's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import PARTS, ROW, Kernel

kernel = pytest.importorskip("midstep.kernel")
threshold = pytest.importorskip("midstep.threshold")
mending = pytest.importorskip("midstep.mending")

pytestmark = compiled.marks

KERNELS = [
    Kernel(
        kernel._draw_tiles,
        {**ROW, "seed": "*i64", "position": "*i64", "sampled": "*i1", "best": "*fp32", "token": "*i32"},
        warps=4,
        wide=(8, 4),
        registers=128,
        instructions=1350,
    ),
    Kernel(
        kernel._draw_rows,
        {"best": "*fp32", "token": "*i32", "parts": "i32", "vocabulary": "i32", "ids": "*i64"},
        warps=1,
        wide=(0, 0),
        registers=32,
        instructions=120,
        constants=PARTS,
        dtypes=("fp32",),
    ),
    Kernel(
        kernel._uniform_rows,
        {"seed": "*i64", "position": "*i64", "numbers": "*fp32", "stream": "i32"},
        warps=1,
        wide=(0, 0),
        registers=32,
        instructions=200,
        dtypes=("fp32",),
    ),
    Kernel(
        mending._mend_tiles,
        {**ROW, "before": "*fp32", "before_stride": "i32", "mended": "*fp32", "marks": "*i32"},
        warps=4,
        wide=(16, 12),
        registers=128,
        instructions=1000,
    ),
    Kernel(
        mending._pick_tiles,
        {**ROW, "keep": "*i1", "keep_stride": "i32", "left": "*fp32", "marks": "*i32"},
        warps=4,
        wide=(8, 4),
        registers=128,
        instructions=1000,
    ),
    Kernel(
        mending._picked_tiles,
        {**ROW, "keep": "*i1", "keep_stride": "i32", "left": "*fp32", "marks": "*i32"}
        | {"token": "*i64", "empty": "*i1", "taken": "*i1"},
        warps=4,
        wide=(8, 4),
        registers=64,
        instructions=600,
        constants=PARTS,
    ),
    Kernel(
        mending._restore_tiles,
        {**ROW, "mended": "*fp32", "marks": "*i32", "fault": "*i64"},
        warps=4,
        wide=(8, 4),
        registers=64,
        instructions=500,
        constants=PARTS,
    ),
    Kernel(
        threshold._statistics_tiles,
        {**ROW, "partials": "*fp32"},
        warps=4,
        wide=(8, 4),
        registers=128,
        instructions=1050,
    ),
    Kernel(
        threshold._statistics_rows,
        {"partials": "*fp32", "parts": "i32", "found": "*fp32"},
        warps=1,
        wide=(0, 0),
        registers=40,
        instructions=350,
        constants=PARTS,
        dtypes=("fp32",),
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
    assert not compiled.unlisted(mending, KERNELS)
    # `_keep_tiles` is compiled with each method's rule, by the method's own list.
    assert compiled.unlisted(threshold, KERNELS) == {"_keep_tiles"}
