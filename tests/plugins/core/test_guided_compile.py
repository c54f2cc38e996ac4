"""The contrasts' kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import PARTS, ROW, Kernel

guided = pytest.importorskip("midstep.guided")

pytestmark = compiled.marks

DRAW = {"temperature": "*fp32", "seed": "*i64", "position": "*i64", "sampled": "*i1"}
WINNERS = {"best": "*fp32", "token": "*i32"}


def contrast(others: str) -> dict[str, str]:
    """Return the arguments of a contrast whose companions' rows have this type."""
    return {
        **ROW,
        "own": "*i64",
        "others": f"*{others}",
        "others_stride": "i32",
        "index": "*i64",
        "weights": "*fp32",
        "count": "i32",
        "floor": "*fp32",
        "scale": "*fp32",
    }


# Companions' rows are the engine's own, whatever their type; the request's rows are float32 by then.
OTHERS = (("fp32", ("fp32", "bf16"), (16, 12)), ("bf16", ("fp32",), (12, 8)))

KERNELS = [
    *(
        Kernel(
            guided._move_tiles,
            {**contrast(others), "moved": "*fp32"},
            warps=4,
            wide=wide,
            registers=168,
            instructions=960,
            dtypes=dtypes,
        )
        for others, dtypes, wide in OTHERS
    ),
    *(
        Kernel(
            guided._draw_tiles,
            {**contrast(others), **DRAW, **WINNERS},
            warps=4,
            wide=wide,
            registers=168,
            instructions=3500,
            dtypes=dtypes,
        )
        for others, dtypes, wide in OTHERS
    ),
    Kernel(
        guided._draw_rows,
        {**WINNERS, "parts": "i32", "vocabulary": "i32", "ids": "*i64", "plain": "*i64", "empty": "*i1"},
        warps=1,
        wide=(0, 0),
        registers=40,
        instructions=200,
        constants=PARTS,
        dtypes=("fp32",),
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(guided, KERNELS)
