"""Locally typical sampling's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import MORE_PARTS, PARTS, ROW, Kernel

kernel = pytest.importorskip("midstep_typical.kernel")

pytestmark = compiled.marks

COLUMNS = {"lse": "*fp32", "entropy": "*fp32", "mass": "*fp32", "min_keep": "*i64", "low": "*i32", "weighed": "*fp32"}
TURN = {**ROW, **COLUMNS, "shift": "i32", "new_low": "*i32", "new_weighed": "*fp32"}

KERNELS = [
    # Triton 3.6 needs a third more registers than 3.9.
    Kernel(kernel._weigh_tiles, TURN, warps=4, wide=(8, 4), registers=208, instructions=6300, constants=PARTS),
    Kernel(
        kernel._weigh_tiles,
        TURN,
        warps=4,
        wide=(8, 4),
        registers=208,
        instructions=6300,
        constants=MORE_PARTS,
        dtypes=("fp32",),
    ),
    Kernel(
        kernel._keep_tiles,
        {**ROW, **COLUMNS, "mask": "*i1"},
        warps=4,
        wide=(8, 4),
        registers=40,
        instructions=530,
        constants=PARTS,
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
