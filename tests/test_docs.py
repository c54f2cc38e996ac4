"""What the READMEs say is what the code does."""

import os
import re
from pathlib import Path

import pytest

import midstep
from midstep.command.readme import compared
from midstep.methods import Method
from midstep.plugins import HOOKS

ROOT = Path(__file__).parents[1]
FOLDERS = [
    path.parent
    for pattern in ("samplers/*", "logits_processors/*", "reward_hooks/*/*")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
]


def methods_of(folder: Path) -> list[type[Method]]:
    """Return the methods that a distribution offers."""
    found = midstep.catalogue()
    distribution = f"midstep-{folder.name.replace('_', '-')}"
    return [found.find(name) for name, owner in found.distribution.items() if owner == distribution and ":" not in name]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_methods_readme_has_its_sections_and_its_parameters(folder: Path) -> None:
    methods = methods_of(folder)
    assert methods
    for finding in compared(folder / "README.md", methods):
        assert finding.mend is None, f"{finding.text}: {finding.mend}"


def test_the_cores_readme_lists_every_hook_and_every_environment_variable() -> None:
    text = (ROOT / "plugins/core/README.md").read_text()
    for hook in HOOKS:
        assert f"`{hook}()`" in text
    used = set()
    for path in ROOT.glob("*/**/*.py"):
        if path.parts[len(ROOT.parts)] in ("plugins", "samplers", "reward_hooks", "logits_processors", "tests"):
            used |= set(re.findall(r"""["'](MIDSTEP(?:_[A-Z]+)?)["']""", path.read_text()))
    readmes = text + (ROOT / "tests/ground/README.md").read_text()
    assert used - {name for name in used if f"`{name}`" in readmes} == set()


def test_no_link_in_a_readme_points_nowhere() -> None:
    for readme in ROOT.glob("**/*.md"):
        if ".midstep" in readme.parts:
            continue
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text()):
            assert os.path.exists(readme.parent / target), f"{readme}: {target}"
