"""Mirostat's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import PARTS, ROW, Kernel

kernel = pytest.importorskip("midstep_mirostat.kernel")

pytestmark = compiled.marks

PARTIALS = {"best": "*fp32", "token": "*i32", "total": "*fp32"}
COLUMNS = {name: "*fp32" for name in ("top", "lse", "mu", "tau", "eta", "surprise", "new_mu")}

KERNELS = [
    Kernel(
        kernel._choose_tiles,
        {**ROW, **PARTIALS, "cut": "*fp32", "top": "*fp32", "seed": "*i64", "position": "*i64", "sampled": "*i1"},
        warps=4,
        wide=(8, 4),
        registers=104,
        instructions=1450,
    ),
    Kernel(
        kernel._choose_rows,
        {**ROW, **PARTIALS, **COLUMNS, "parts": "i32", "sampled": "*i1", "ids": "*i64"},
        warps=1,
        wide=(0, 0),
        registers=32,
        instructions=240,
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
