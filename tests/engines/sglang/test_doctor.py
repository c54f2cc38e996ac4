"""`midstep doctor` in SGLang's environment: no engine is started."""

from __future__ import annotations

import os
import subprocess
import sys


def doctor(**variables: str) -> tuple[int, str]:
    """Run it, and return its exit status and what it printed."""
    command = [sys.executable, "-m", "midstep", "doctor"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_the_tested_sglang_has_every_seam_and_a_setting_that_keeps_midstep_out_is_said() -> None:
    """The one thing that is broken is what this test sets."""
    status, said = doctor(PYTHONPATH="", SGLANG_PLUGINS="other")
    assert status == 1, said
    assert "ok      SGLang 0.5.23 with midstep-sglang 0.1.0: tested" in said
    assert "seams of SGLang are there: TokenizerManager._validate_one_request, " in said
    assert "BROKEN  SGLANG_PLUGINS=other keeps midstep out of SGLang\n        mend: add midstep to it" in said
    assert said.endswith("1 broken\n")
