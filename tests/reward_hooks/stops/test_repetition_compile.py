"""Repetition's kernel, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import Kernel

kernel = pytest.importorskip("midstep_repetition.kernel")

pytestmark = compiled.marks

COLUMNS = ("lengths", "generated", "times", "period", "least", "stretch", "needed")

KERNELS = [
    Kernel(
        kernel._repeated_rows,
        {"ids": "*i64", "stride": "i32", **dict.fromkeys(COLUMNS, "*i64")},
        warps=8,
        wide=(0, 0),
        registers=96,
        instructions=1300,
        dtypes=("fp32",),
    )
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; registers and instructions within bounds. No logits are read."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
