"""Nudging's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import PARTS, ROW, Kernel

kernel = pytest.importorskip("midstep_nudging.kernel")

pytestmark = compiled.marks

WINNERS = {"best": "*fp32", "token": "*i32", "total": "*fp32"}
OTHER = {"others": "*fp32", "others_stride": "i32"}
ENDS = {"ends": "*i64", "count": "i32"}

KERNELS = [
    Kernel(kernel._read_tiles, {**ROW, **OTHER, **WINNERS}, warps=4, wide=(16, 12), registers=128, instructions=900),
    Kernel(
        kernel._turn_rows,
        {
            **WINNERS,
            **ENDS,
            "parts": "i32",
            "vocabulary": "i32",
            "mode": "*i64",
            "threshold": "*fp32",
            "starts": "*i64",
            "words": "i32",
            "new_mode": "*i64",
            "takes": "*i32",
        },
        warps=1,
        wide=(0, 0),
        registers=40,
        instructions=480,
        constants=PARTS,
        dtypes=("fp32",),
    ),
    Kernel(
        kernel._write_tiles,
        {**ROW, **OTHER, **ENDS, "takes": "*i32", "left": "*fp32"},
        warps=4,
        wide=(16, 12),
        registers=136,
        instructions=700,
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
