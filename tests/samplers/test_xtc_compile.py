"""XTC's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import PARTS, ROW, Kernel

kernel = pytest.importorskip("midstep_xtc.kernel")

pytestmark = compiled.marks

LEAST = {**ROW, "cut": "*fp32", "least": "*fp32", "token": "*i32"}

KERNELS = [
    Kernel(kernel._least_tiles, LEAST, warps=4, wide=(8, 4), registers=64, instructions=450),
    Kernel(
        kernel._mask_tiles,
        {**LEAST, "special": "*i64", "width": "i32", "mask": "*i1"},
        warps=4,
        wide=(8, 4),
        registers=64,
        instructions=430,
        constants={**PARTS, "special_block": 16},
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
