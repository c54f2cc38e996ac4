"""Top-n-sigma's rule, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import Kernel

kernel = pytest.importorskip("midstep_top_nsigma.kernel")

pytestmark = compiled.marks

KERNELS = [compiled.keep_rule(kernel.rule, instructions=420)]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)
