"""Every kernel, compiled ahead for sm_90 without a GPU: what the interpreter cannot show.

No registers spilt, the widest loads, not many more instructions than when they were last counted.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from interpreter import INTERPRETED

triton = pytest.importorskip("triton", reason="Triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from midstep import kernel as core  # noqa: E402
from midstep_deepconf import kernel as deepconf  # noqa: E402
from midstep_min_p import kernel as min_p  # noqa: E402

pytestmark = [
    pytest.mark.compile,
    pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1: the kernels are interpreted, not compiled"),
]

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ROW = {"logits": "*fp32", "stride": "i32", "vocabulary": "i32"}
# V = 151,936, as Qwen's: 38 tiles of 4,096 tokens, 2,432 groups of 64. V = 262,208, as Gemma's: 65 and 4,160.
PARTS, GROUPS = {"part_block": 64}, {"group_block": 4096}
MORE_PARTS, MORE_GROUPS = {"part_block": 128}, {"group_block": 8192}
CONFIDENCE_ROWS = {
    **ROW,
    "top": "*fp32",
    "total": "*fp32",
    "group_top": "*fp32",
    "parts": "i32",
    "k": "*i64",
    "confidence": "*fp32",
}
# Arguments that an aligned, padded row makes a multiple of 16; pointers are too.
ALIGNED = ("stride", "vocabulary", "width")


@dataclass(frozen=True)
class Kernel:
    """One kernel as an engine launches it, and what its code may cost.

    Args:
        arguments: types by name, as Triton writes them.
        wide: loads of 128 bits, for float32 and bfloat16 logits.
        registers: at most so many per thread.
        instructions: at most so many per program and thread.
        constants: values of the tl.constexpr arguments.
        dtypes: of the logits.
    """

    function: Any
    arguments: dict[str, str]
    warps: int
    wide: tuple[int, int]
    registers: int
    instructions: int
    constants: dict[str, int] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("fp32", "bf16")


KERNELS = [
    Kernel(
        core._draw_tiles,
        {**ROW, "seed": "*i64", "position": "*i64", "sampled": "*i1", "best": "*fp32", "token": "*i32"},
        warps=4,
        wide=(8, 4),
        registers=128,
        instructions=1350,
    ),
    Kernel(
        core._draw_rows,
        {"best": "*fp32", "token": "*i32", "parts": "i32", "vocabulary": "i32", "ids": "*i64"},
        warps=1,
        wide=(0, 0),
        registers=32,
        instructions=120,
        constants=PARTS,
        dtypes=("fp32",),
    ),
    Kernel(min_p._max_tiles, {**ROW, "top": "*fp32"}, warps=4, wide=(8, 4), registers=40, instructions=200),
    Kernel(
        min_p._keep_tiles,
        {**ROW, "top": "*fp32", "log_p": "*fp32", "mask": "*i1"},
        warps=4,
        wide=(8, 4),
        registers=64,
        instructions=340,
        constants=PARTS,
    ),
    Kernel(
        deepconf._confidence_tiles,
        {**ROW, "top": "*fp32", "total": "*fp32", "group_top": "*fp32"},
        warps=4,
        wide=(8, 4),
        registers=72,
        instructions=480,
    ),
    Kernel(
        deepconf._confidence_rows,
        CONFIDENCE_ROWS,
        warps=8,
        # Of the group maxima; the candidates' own loads are wider or narrower with the version of Triton.
        wide=(4, 4),
        registers=112,
        instructions=7000,
        constants={**PARTS, **GROUPS},
    ),
    Kernel(
        deepconf._confidence_rows,
        CONFIDENCE_ROWS,
        warps=8,
        wide=(8, 8),
        registers=232,
        instructions=12500,
        constants={**MORE_PARTS, **MORE_GROUPS},
        dtypes=("fp32",),
    ),
    Kernel(
        deepconf._window_mean,
        {
            "ring": "*fp32",
            "stride": "i32",
            "confidence": "*fp32",
            "position": "*i64",
            "window": "*i64",
            "width": "i32",
            "new_ring": "*fp32",
            "mean": "*fp32",
        },
        warps=4,
        wide=(4, 4),
        registers=128,
        instructions=750,
        constants={"blocks": 1},
        dtypes=("fp32",),
    ),
]
CASES = [
    pytest.param(kernel, dtype, id="-".join([kernel.function.__name__, dtype, *map(str, kernel.constants.values())]))
    for kernel in KERNELS
    for dtype in kernel.dtypes
]


@pytest.mark.parametrize(("kernel", "dtype"), CASES)
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """No stack, no local memory; loads as wide as the hardware has them; registers and instructions within bounds."""
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(_compile(kernel, dtype).asm["cubin"])
    use = {k: int(v) for k, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", _cuobjdump("--dump-resource-usage", cubin))}
    code = _cuobjdump("--dump-sass", cubin)
    instructions = len(re.findall(r"\n\s+/\*[0-9a-f]{4,}\*/", code))
    wide = len(re.findall(r"\bLDG\.E\S*\.128", code))
    print(f"{use['REG']} registers, {instructions} instructions, {wide} wide loads")
    assert use["STACK"] == use["LOCAL"] == 0, "registers are spilt"
    assert not re.search(r"\b(LDL|STL)\b", code), "registers are spilt"
    assert wide >= kernel.wide[dtype == "bf16"]
    assert use["REG"] <= kernel.registers
    assert instructions <= kernel.instructions


def test_every_kernel_is_on_the_list() -> None:
    """A kernel that nobody compiles here breaks on the first GPU instead."""
    listed = {kernel.function.__name__ for kernel in KERNELS}
    for module in (core, min_p, deepconf):
        found = {n for n, f in vars(module).items() if n.startswith("_") and isinstance(f, triton.runtime.JITFunction)}
        assert found <= listed, f"{module.__name__}: {found - listed}"


def _compile(kernel: Kernel, dtype: str) -> Any:
    names = kernel.function.arg_names
    types = {**kernel.arguments, **({"logits": f"*{dtype}"} if "logits" in kernel.arguments else {})}
    source = ASTSource(
        fn=kernel.function,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in kernel.constants.items()},
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if name in ALIGNED or types.get(name, "").startswith("*")
        },
    )
    options = {"num_warps": kernel.warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def _cuobjdump(option: str, cubin: Path) -> str:
    tool = os.environ.get("TRITON_CUOBJDUMP_PATH", str(TOOLS / "cuobjdump"))
    return subprocess.run([tool, option, str(cubin)], capture_output=True, text=True, check=True).stdout
