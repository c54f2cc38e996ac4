"""A plugin that is not of this repository's methods: its wheel is built, installed, and used by a real engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from engines.vllm import driver

TESTS = Path(__file__).parents[2]
EXAMPLE = TESTS.parent / "examples" / "write_a_plugin" / "samplers" / "top_a"


def run(*arguments: str | Path, cwd: Path, **variables: str) -> str:
    """Run Python and return what it printed."""
    command = [sys.executable, *map(str, arguments)]
    shell = {**os.environ, **variables}
    done = subprocess.run(command, cwd=cwd, env=shell, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with nothing but what the example's wheel holds."""
    sources = shutil.copytree(EXAMPLE, tmp_path / "top_a")
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    run("-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", tmp_path / "wheels", sources, cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name == "midstep_top_a-0.1.0-py3-none-any.whl"
    run("-m", "pip", "install", *offline, "--target", tmp_path / "site", wheel, cwd=tmp_path)
    return tmp_path / "site"


@pytest.mark.skipif(driver.V2, reason="finding a plugin is the same for both runners, and seen on V1")
def test_its_answers_are_those_of_midstep_eager(site: Path) -> None:
    """In a process of its own, to whose path the wheel was added: three wishes, their reports, and a refusal."""
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    said = run("-m", "engines.vllm.outsider", cwd=TESTS, PYTHONPATH=path)
    lines = [line for line in said.splitlines() if line.startswith(("from", "equal", "steered", "refused"))]
    assert lines[0] == f"from {site / 'midstep_top_a' / '__init__.py'}"
    assert [line.rpartition(" ")[0] for line in lines[1:4]] == ["equal True 20 changed"] * 3
    assert sum(int(line.rpartition(" ")[2]) for line in lines[1:4]) > 0
    assert lines[4] == "steered True"
    assert "top_a.a = 2: input should be less than or equal to 1; parameters of top_a: a (float, >= 0, <= 1" in lines[5]
