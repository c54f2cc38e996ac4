"""Quadratic sampling's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import PARTS, ROW, Kernel

kernel = pytest.importorskip("midstep_quadratic.kernel")

pytestmark = compiled.marks

KERNELS = [
    Kernel(kernel._top_tiles, {**ROW, "top": "*fp32"}, warps=4, wide=(8, 4), registers=40, instructions=180),
    Kernel(
        kernel._bend_tiles,
        {**ROW, "top": "*fp32", "factor": "*fp32", "curve": "*fp32", "bent": "*fp32"},
        warps=4,
        wide=(8, 4),
        registers=64,
        instructions=470,
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
