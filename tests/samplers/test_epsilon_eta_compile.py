"""Epsilon's and eta's rules, compiled ahead for sm_90."""

from pathlib import Path

import compiled
import pytest
from compiled import Kernel

kernel = pytest.importorskip("midstep_epsilon_eta.kernel")

pytestmark = compiled.marks

KERNELS = [
    compiled.keep_rule(kernel.epsilon_rule, instructions=380),
    compiled.keep_rule(kernel.eta_rule, instructions=410),
]


@pytest.mark.parametrize(("kernel", "dtype"), compiled.cases(KERNELS))
def test_a_kernel_compiles_to_lean_code(kernel: Kernel, dtype: str, tmp_path: Path) -> None:
    """Nothing spilt; wide loads; registers and instructions within bounds."""
    compiled.check(kernel, dtype, tmp_path)
