"""The making of environments and models, and what is said when it fails: no network, no engine."""

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from ground import environments, layers, model, places, python
from ground.pip import pip, reason
from ground.progress import GroundError

PROJECT = """
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "midstep-nothing"
version = "{version}"

[project.entry-points.midstep]
nothing = "midstep_nothing"

[tool.setuptools]
packages = ["midstep_nothing"]
"""


def test_an_interrupted_build_is_removed_and_repeated(tmp_path: Path) -> None:
    """What a build left that did not come to its end is not there in the next."""
    folder = tmp_path / "made"

    def interrupted() -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        places.make(folder, interrupted)
    assert not places.is_complete(folder)
    places.make(folder, (folder / "whole").touch)
    assert places.is_complete(folder)
    assert not (folder / "half").exists()


def test_a_complete_folder_is_kept(tmp_path: Path) -> None:
    """Only another key, or the loss of what the folder must hold, builds it again."""
    folder, built = tmp_path / "made", []

    def build() -> None:
        built.append(1)
        (folder / "python").touch()

    for key, count in (("a", 1), ("a", 1), ("b", 2)):
        places.make(folder, build, key, holds="python")
        assert len(built) == count
    (folder / "python").unlink()
    places.make(folder, build, "b", holds="python")
    assert len(built) == 3


def test_a_small_disk_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how much is needed, how much there is, and what to do."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10e9, 9e9, 1e9))
    with pytest.raises(GroundError, match=r"12 GB are needed in .*, 1\.0 GB are free; make room, or set MIDSTEP_HOME"):
        places.require_space(12)


def test_a_failing_installation_says_why_in_one_line(tmp_path: Path) -> None:
    """The line names the package and the log."""
    log = places.begin_log(tmp_path / "some")
    with pytest.raises(GroundError) as caught:
        pip(Path(sys.executable), "some: packages", ["install", "--no-index", "no-such-thing==1"], log)
    assert str(caught.value).splitlines() == [
        "some: packages: failed: ERROR: No matching distribution found for no-such-thing==1 "
        f"(all of it: {tmp_path / 'some.log'})"
    ]


def test_a_missing_network_is_called_so() -> None:
    """pip itself only says that it found no distribution."""
    wrote = "WARNING: Retrying: NewConnectionError('<HTTPS>: Failed')\nERROR: No matching distribution found for x\n"
    assert reason(wrote) == (
        "no network: pip cannot reach its package index; ERROR: No matching distribution found for x"
    )


def test_a_broken_distribution_is_named() -> None:
    """pip's own last words are "metadata-generation-failed"."""
    wrote = "Obtaining file:///a/b\n  ValueError: no version\n  [end of output]\nerror: metadata-generation-failed\n"
    assert reason(wrote) == "Obtaining file:///a/b: ValueError: no version"


def test_no_python_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no Python 3.11 is told so."""
    monkeypatch.setattr(python, "is_whole", lambda path: False)
    with pytest.raises(SystemExit, match=r"^midstep: Python 3\.11 with venv, .* Install it .*$"):
        python.restart()


def test_the_users_shell_does_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only MIDSTEP_HOME is taken from it."""
    for name in ("PYTHONPATH", "TRITON_INTERPRET", "MIDSTEP", "PYTEST_ADDOPTS"):
        monkeypatch.setenv(name, "odd")
    assert "odd" not in environments.variables("vllm").values()


def test_a_damaged_download_is_refused(tmp_path: Path) -> None:
    """The model's bytes are pinned."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(GroundError, match=r"model\.gguf has the sha256 .*, not b179c95"):
        model.verify(tmp_path / "model.gguf", model.SHA256)


def test_a_layer_follows_the_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds what the checkout has, is kept while that is so, and is seen in every process."""
    monkeypatch.setattr(environments, "make", lambda name: Path(sys.prefix))
    folder = tmp_path / "samplers" / "nothing"
    (folder / "midstep_nothing").mkdir(parents=True)
    (folder / "midstep_nothing" / "__init__.py").touch()
    (tmp_path / "plugins" / "vllm").mkdir(parents=True)
    (tmp_path / "plugins" / "vllm" / "pyproject.toml").touch()
    asked = "import importlib.metadata as m; print([e.dist.version for e in m.entry_points(name='nothing')])"
    for version in ("0.1", "0.2"):
        (folder / "pyproject.toml").write_text(PROJECT.format(version=version))
        interpreter = layers.make("torch", tmp_path)
        made = interpreter.lstat().st_mtime_ns
        assert subprocess.check_output([interpreter, "-c", asked], text=True, cwd=tmp_path) == f"['{version}']\n"
        assert layers.make("torch", tmp_path).lstat().st_mtime_ns == made
    assert layers.distributions("torch", tmp_path) == [folder]


def test_the_extras_change_no_version_of_an_environment() -> None:
    """What lends its packages to every layer names nothing that an environment pins otherwise."""
    pinned = {
        name: dict(
            line.lower().replace("_", "-").split("==")
            for line in (environments.REQUIREMENTS / f"{name}.txt").read_text().split("\n")
            if "==" in line and not line.startswith("#")
        )
        for name in ("torch", "sglang", "vllm", environments.BEHIND)
    }
    lent = pinned.pop(environments.BEHIND)
    assert {"math-verify", "reasoning-gym", "aiohttp"} <= set(lent)
    for name, packages in pinned.items():
        for package in set(packages) & set(lent):
            assert packages[package] == lent[package], f"{package} of {name}"
