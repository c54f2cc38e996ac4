"""Compiles kernels ahead for sm_90 without a GPU: what the interpreter cannot show.

A file `test_<name>_compile.py` lists its kernels, and begins with `pytestmark = compiled.marks`.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from interpreter import INTERPRETED

triton = pytest.importorskip("triton", reason="Triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from midstep import threshold  # noqa: E402

marks = [
    pytest.mark.compile,
    pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1: the kernels are interpreted, not compiled"),
]

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ROW = {"logits": "*fp32", "stride": "i32", "vocabulary": "i32"}
# V = 151,936, as Qwen's: 38 tiles of 4,096 tokens, 2,432 groups of 64. V = 262,208, as Gemma's: 65 and 4,160.
PARTS, GROUPS = {"part_block": 64}, {"group_block": 4096}
MORE_PARTS, MORE_GROUPS = {"part_block": 128}, {"group_block": 8192}
# Arguments that an aligned, padded row makes a multiple of 16; pointers are too.
ALIGNED = ("stride", "others_stride", "before_stride", "keep_stride", "vocabulary", "width")


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
        loose: arguments that are not specialised for, whatever they are.
    """

    function: Any
    arguments: dict[str, str]
    warps: int
    wide: tuple[int, int]
    registers: int
    instructions: int
    constants: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("fp32", "bf16")
    loose: tuple[str, ...] = ()


def keep_rule(rule: Any, *, instructions: int, registers: int = 64) -> Kernel:
    """Return the kernel that writes the mask of a method's threshold rule."""
    return Kernel(
        threshold._keep_tiles,
        {**ROW, "partials": "*fp32", "first": "*fp32", "second": "*fp32", "mask": "*i1"},
        warps=4,
        wide=(8, 4),
        registers=registers,
        instructions=instructions,
        constants={"rule": rule, **PARTS},
    )


def cases(kernels: list[Kernel]) -> list[Any]:
    """Return the parameters of a test over `kernels`: each with each dtype of its logits."""
    return [pytest.param(kernel, dtype, id=f"{_name(kernel)}-{dtype}") for kernel in kernels for dtype in kernel.dtypes]


def _name(kernel: Kernel) -> str:
    return "-".join([kernel.function.__name__, *(_text(value) for value in kernel.constants.values())])


def _text(constant: Any) -> str:
    if isinstance(constant, tuple):
        return f"({','.join(_text(one) for one in constant)})"
    return str(getattr(constant, "__name__", constant))


def check(kernel: Kernel, dtype: str, folder: Path) -> None:
    """Demand no stack and no local memory, loads as wide as the hardware has them, few registers and instructions."""
    cubin = folder / "kernel.cubin"
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


def unlisted(module: ModuleType, kernels: list[Kernel]) -> set[str]:
    """Return the module's kernels (Triton functions `_name_tiles`, `_name_rows` and the like) that are not listed."""
    listed = {kernel.function.__name__ for kernel in kernels}
    called = {n for n in vars(module) if n.startswith("_") and not n.endswith(("_tiles", "_rows"))}
    found = {n for n, f in vars(module).items() if n.startswith("_") and isinstance(f, triton.runtime.JITFunction)}
    return found - listed - called


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
            if (name in ALIGNED and name not in kernel.loose) or types.get(name, "").startswith("*")
        },
    )
    options = {"num_warps": kernel.warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def _cuobjdump(option: str, cubin: Path) -> str:
    tool = os.environ.get("TRITON_CUOBJDUMP_PATH", str(TOOLS / "cuobjdump"))
    return subprocess.run([tool, option, str(cubin)], capture_output=True, text=True, check=True).stdout
