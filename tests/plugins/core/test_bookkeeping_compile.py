"""The bookkeeping's kernels, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import ROW, Kernel

bookkeeping = pytest.importorskip("midstep.bookkeeping", reason="Triton is not installed")

pytestmark = compiled.marks

INTEGERS = ("position", "written", "token", "rule", "fault", "culprit")
LEFT = {**dict.fromkeys(INTEGERS, "*i64"), "value": "*fp32", "threshold": "*fp32", "end": "*i1", "changed": "*i1"}
RULED = {"trace": "*fp32", "refused": "*i1", "empty": "*i1", "names": "*i64", "stops_on_error": "*i1", "ends": "*i64"}
KEPT = {"tag": "*i64", "drawn": "*i64", "history": "*i32", "prompt_length": "*i64"}
COUNTS = dict.fromkeys(("methods", "traced", "width", "room"), "i32")
SETTLE = {**LEFT, **RULED, **KEPT, "tokens": "*i64", "values": "*fp32", **COUNTS}

STATE = {"ring": "*i64", "slots": "*i64", "position": "*i64"}
SAID = {"action": "*i64", "value": "*fp32", "threshold": "*fp32", "instead": "*i64"}
WHERE = dict.fromkeys(("base", "within", "position", "min_tokens", "rule"), "*i64")
NOW = {"end": "*i1", "values": "*fp32", "thresholds": "*fp32", "forced": "*i64"}
NEW = {"new_rule": "*i64", "new_end": "*i1", "new_values": "*fp32", "index": "i32", "rows": "i32"}

KERNELS = [
    Kernel(
        bookkeeping._decide_rows,
        {**SAID, **WHERE, **NOW, **NEW},
        warps=1,
        wide=(0, 0),
        registers=64,
        instructions=600,
        dtypes=("fp32",),
    ),
    *(
        Kernel(
            bookkeeping._recall_rows,
            {**STATE, "starts": "*i64", "init": "fp32", "state": "*i64", "width": "i32"},
            warps=1,
            wide=(0, 0),
            registers=128,
            instructions=1200,
            constants={"columned": columned},
            dtypes=("fp32",),
        )
        for columned in (False, True)
    ),
    Kernel(
        bookkeeping._keep_rows,
        {**STATE, "state": "*i64", "width": "i32", "wide": "i32"},
        warps=1,
        wide=(0, 0),
        registers=128,
        instructions=700,
        dtypes=("fp32",),
    ),
    Kernel(
        bookkeeping._open_rows,
        {**dict.fromkeys(bookkeeping.OPENED, "*i64"), "rows": "i32"},
        warps=1,
        wide=(0, 0),
        registers=64,
        instructions=260,
        dtypes=("fp32",),
    ),
    *(
        Kernel(
            bookkeeping._settle_rows,
            SETTLE,
            warps=1,
            wide=(0, 0),
            registers=64,
            instructions=600,
            constants={"rules": rules},
            dtypes=("fp32",),
        )
        for rules in (0, 5)
    ),
    Kernel(
        bookkeeping._write_rows,
        {**ROW, "rows": "*i64", "of": "*i64", "token": "*i64"},
        warps=4,
        wide=(0, 0),
        registers=64,
        instructions=400,
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(bookkeeping, KERNELS)
