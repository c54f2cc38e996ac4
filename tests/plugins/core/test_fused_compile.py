"""The fused kernels, compiled ahead for sm_90 with the rules of every installed method."""

from pathlib import Path

import compiled
import pytest
from compiled import GROUPS, PARTS, ROW, Kernel

fused = pytest.importorskip("midstep.fused")
listing = pytest.importorskip("midstep.listing")
cutting = pytest.importorskip("midstep.cutting")
rules = pytest.importorskip("midstep_min_p.kernel").rule, pytest.importorskip("midstep_top_nsigma.kernel").rule

pytestmark = compiled.marks

TEMPERED = {**ROW, "temperature": "*fp32"}
DRAW = {"seed": "*i64", "position": "*i64", "sampled": "*i1"}
BOUNDS = {"bounds": "*fp32", "live": "*i32", "live_count": "*i32"}
FOUND = {"whole": "*i64", "first_rule": "*i32", "refused": "*i1", "empty": "*i1", **BOUNDS}
TILES = {"partials": "*fp32", "best": "*fp32", "token": "*i32", "group_top": "*fp32", "groups": "i32"}
USES = {"columns": "*fp32", "uses": "*i1", "cuts": "*fp32"}
RULES = {"rules": rules, "count": len(rules)}
NO_RULES = {"rules": (), "count": 0}

LISTING = [
    Kernel(listing._read_tiles, {**TEMPERED, **DRAW, **TILES}, warps=4, wide=(8, 4), registers=152, instructions=3200),
    *(
        Kernel(
            listing._list_rows,
            {**TEMPERED, **TILES, "parts": "i32", **USES, **FOUND},
            warps=8,
            wide=(0, 0),
            registers=112,
            instructions=2200,
            constants={**used, **PARTS, **GROUPS},
        )
        for used in (RULES, NO_RULES)
    ),
]
FUSED = [
    Kernel(
        fused._visit_rows,
        {**TEMPERED, **DRAW, "groups": "i32", **USES, **FOUND, "ids": "*i64"},
        warps=4,
        wide=(24, 12),
        registers=168,
        instructions=5600,
        constants=used,
    )
    for used in (RULES, NO_RULES)
]
CUTTING = [
    Kernel(
        cutting._search_rows,
        {**ROW, "groups": "i32", "cuts": "*fp32", **BOUNDS, "threshold": "*fp32"},
        warps=8,
        wide=(4, 2),
        registers=72,
        instructions=1400,
    ),
    Kernel(
        cutting._cut_tiles,
        {**ROW, "threshold": "*fp32", "left": "*fp32"},
        warps=4,
        wide=(8, 4),
        registers=64,
        instructions=400,
    ),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases([*LISTING, *FUSED, *CUTTING]))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    for module, kernels in ((listing, LISTING), (fused, FUSED), (cutting, CUTTING)):
        assert not compiled.unlisted(module, kernels)
