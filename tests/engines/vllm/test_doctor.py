"""`midstep doctor` in vLLM's environment: no engine is started. Of a live server: test_http.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from engines.vllm import driver

pytestmark = pytest.mark.skipif(driver.V2, reason="about what is installed: the same for both runners, and seen on V1")


def doctor(**variables: str) -> tuple[int, str]:
    """Run it, and return its exit status and what it printed."""
    command = [sys.executable, "-m", "midstep", "doctor"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_the_tested_vllm_has_every_seam_and_a_setting_that_keeps_midstep_out_is_said() -> None:
    """They are wrapped in that process as vLLM would wrap them; the one thing that is broken is what this test sets."""
    status, said = doctor(PYTHONPATH="", VLLM_PLUGINS="other")
    assert status == 1, said
    assert "ok      vLLM 0.32.0+cpu with midstep-vllm 0.1.0: tested" in said
    assert "ok      all 7 seams of vLLM are wrapped: EngineArgs.create_engine_config, " in said
    assert "BROKEN  VLLM_PLUGINS=other keeps midstep out of vLLM\n        mend: add midstep to it, or unset it" in said
    assert said.endswith("1 broken\n")
