"""DeepConf's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import GROUPS, MORE_GROUPS, MORE_PARTS, PARTS, ROW, Kernel

kernel = pytest.importorskip("midstep_deepconf.kernel")

pytestmark = compiled.marks

CONFIDENCE_ROWS = {
    **ROW,
    "top": "*fp32",
    "total": "*fp32",
    "group_top": "*fp32",
    "parts": "i32",
    "k": "*i64",
    "confidence": "*fp32",
}

KERNELS = [
    Kernel(
        kernel._confidence_tiles,
        {**ROW, "top": "*fp32", "total": "*fp32", "group_top": "*fp32"},
        warps=4,
        wide=(8, 4),
        registers=72,
        instructions=480,
    ),
    Kernel(
        kernel._confidence_rows,
        CONFIDENCE_ROWS,
        warps=8,
        # Of the group maxima; the candidates' own loads are wider or narrower with the version of Triton.
        wide=(4, 4),
        registers=112,
        instructions=7000,
        constants={**PARTS, **GROUPS},
    ),
    Kernel(
        kernel._confidence_rows,
        CONFIDENCE_ROWS,
        warps=8,
        wide=(8, 8),
        registers=232,
        instructions=12500,
        constants={**MORE_PARTS, **MORE_GROUPS},
        dtypes=("fp32",),
    ),
    Kernel(
        kernel._window_mean,
        {
            "ring": "*fp32",
            "stride": "i32",
            "confidence": "*fp32",
            "position": "*i64",
            "window": "*i64",
            "width": "i32",
            "new_ring": "*fp32",
            "mean": "*fp32",
        },
        warps=4,
        wide=(0, 0),
        registers=128,
        instructions=1000,
        dtypes=("fp32",),
        loose=("stride", "width"),
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
