"""The fused kernels, compiled ahead for sm_90 with the rules of every installed method."""

from pathlib import Path

import compiled
import pytest
from compiled import GROUPS, PARTS, ROW, Kernel

fused = pytest.importorskip("midstep.fused")
rules = pytest.importorskip("midstep_min_p.kernel").rule, pytest.importorskip("midstep_top_nsigma.kernel").rule

pytestmark = compiled.marks

DRAW = {"seed": "*i64", "position": "*i64", "sampled": "*i1"}
FOUND = {
    "whole": "*i64",
    "whole_logit": "*fp32",
    "cut": "*fp32",
    "first_rule": "*i32",
    "refused": "*i1",
    "empty": "*i1",
    "live": "*i32",
    "live_count": "*i32",
}
TILES = {"partials": "*fp32", "best": "*fp32", "token": "*i32", "group_top": "*fp32", "groups": "i32"}
USES = {"columns": "*fp32", "uses": "*i1"}
RULES = {"rules": rules, "count": len(rules)}

KERNELS = [
    Kernel(
        fused._read_tiles,
        {**ROW, "temperature": "*fp32", **DRAW, **TILES},
        warps=4,
        wide=(8, 4),
        registers=152,
        instructions=3200,
    ),
    Kernel(
        fused._list_rows,
        {**ROW, "temperature": "*fp32", **TILES, "parts": "i32", **USES, **FOUND},
        warps=8,
        wide=(0, 0),
        registers=88,
        instructions=1700,
        constants={**RULES, **PARTS, **GROUPS},
    ),
    Kernel(
        fused._visit_rows,
        {**ROW, "temperature": "*fp32", **DRAW, "groups": "i32", **USES, **FOUND, "ids": "*i64"},
        warps=4,
        wide=(0, 0),
        registers=168,
        instructions=4200,
        constants=RULES,
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    assert not compiled.unlisted(fused, KERNELS)
