"""DRY's kernel, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import ROW, Kernel

kernel = pytest.importorskip("midstep_dry.kernel")

pytestmark = compiled.marks

KERNELS = [
    Kernel(
        kernel._penalise_blocks,
        {
            **ROW,
            "ids": "*i64",
            "ids_stride": "i32",
            "lengths": "*i64",
            "breakers": "*i64",
            "breakers_stride": "i32",
            "breaker_count": "i32",
            "multiplier": "*fp32",
            "base": "*fp32",
            "allowed_length": "*i64",
            "span": "*i64",
            "max_match": "*i64",
            "penalised": "*i32",
            "unsigned": "*u32",
        },
        warps=4,
        wide=(0, 0),
        registers=48,
        instructions=1300,
    )
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; registers and instructions within bounds. A row's logits are only touched where a match ends."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(kernel, KERNELS)
