"""The example's steps, taken as its README says them: tested, installed, checked, asked for in a plain loop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from midstep.command import new

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/write_a_plugin/samplers/top_a"
ANSWER = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
import midstep_eager
torch.manual_seed(0)
sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
options = midstep_eager.Options(max_tokens=8, seed=1)
answer = midstep_eager.generate(model, None, [1, 2, 3], options, top_a={"a": 1.0, "power": 1.0})[0]
best = midstep_eager.generate(model, None, [1, 2, 3], options, min_p={"p": 1.0})[0]
print(answer.ids == best.ids, answer.report.methods["top_a"].changed > 0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example, outside of the repository."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "top_a", ignore=shutil.ignore_patterns("__pycache__")))


def python(*arguments: str | Path, cwd: Path, path: tuple[Path, ...]) -> str:
    """Run Python, demand that it succeeds, and return what it printed."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("MIDSTEP", "TRITON_", "PY"))}
    shell["PYTHONPATH"] = ":".join(map(str, path))
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_the_files_that_midstep_new_writes_and_nothing_is_left_to_write() -> None:
    written = new.sources("samplers", "top_a", in_checkout=False)
    files = {str(path.relative_to(EXAMPLE.parents[1])) for path in EXAMPLE.rglob("*.*") if path.is_file()}
    assert {file for file in files if "__pycache__" not in file} == set(written)
    assert not [file for file in written if "YOURS" in (EXAMPLE.parents[1] / file).read_text()]


def test_it_is_tested_built_checked_and_asked_for(folder: Path, tmp_path: Path) -> None:
    """`midstep check` says exactly what the README shows."""
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder, path=(folder,))
    assert "skipped" not in said
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    site = tmp_path / "site"
    python("-m", "pip", "install", "-q", *offline, "--target", site, folder, cwd=tmp_path, path=())
    said = python("-m", "midstep", "check", "midstep-top-a", cwd=tmp_path, path=(site,))
    page = (ROOT / "examples/write_a_plugin/README.md").read_text()
    assert said == "".join(f"{line}\n" for line in re.findall(r"^ok  .*$", page, re.M))
    assert "README.md: the parameters of top_a" in python(
        "-m", "midstep", "check", "top_a", cwd=tmp_path, path=(folder, site)
    )
    assert python("-c", ANSWER, cwd=tmp_path, path=(site,)).split() == ["True", "True"]
