"""The thinking budget's kernel, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import Kernel

kernel = pytest.importorskip("midstep_thinking_budget.kernel")

pytestmark = compiled.marks

KERNELS = [
    Kernel(
        kernel._follow_rows,
        {
            **dict.fromkeys(kernel.COLUMNS, "*i64"),
            **dict.fromkeys(kernel.WIDTHS, "i32"),
            "fractions": "*fp32",
        },
        warps=1,
        wide=(0, 0),
        registers=128,
        instructions=1200,
        dtypes=("fp32",),
        loose=kernel.WIDTHS,
    )
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; registers and instructions within bounds. No logits are read."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
