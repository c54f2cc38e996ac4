"""Dynamic temperature's and EDT's kernel, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import ROW, Kernel

kernel = pytest.importorskip("midstep_dynamic_temperature.kernel")

pytestmark = compiled.marks

KERNELS = [
    Kernel(
        kernel._divide_tiles,
        {**ROW, "top": "*fp32", "temperature": "*fp32", "divided": "*fp32"},
        warps=4,
        wide=(8, 4),
        registers=64,
        instructions=500,
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
