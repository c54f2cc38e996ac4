"""M3ID's kernel, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import Kernel

kernel = pytest.importorskip("midstep_m3id.kernel")

pytestmark = compiled.marks

KERNELS = [
    Kernel(
        kernel._weigh_rows,
        {
            "top": "*fp32",
            "lse": "*fp32",
            "position": "*i64",
            "decay": "*fp32",
            "mode": "*i64",
            "threshold": "*fp32",
            "plausible": "*fp32",
            "most": "*fp32",
            "rows": "i32",
            "weight": "*fp32",
            "floor": "*fp32",
        },
        warps=4,
        wide=(0, 0),
        registers=48,
        instructions=400,
        dtypes=("fp32",),
    )
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; registers and instructions within bounds. It reads no logits."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
