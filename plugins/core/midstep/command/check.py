"""Check every method of an installed distribution against the laws of its kind and the rules of a distribution."""

from __future__ import annotations

import importlib
import re
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..beside import Reward
from ..methods import SEAM, Method, Params, Sampler
from ..operation import named as operation
from ..plugins import Catalogue, catalogue
from ..searching.naming import named
from ..testing import laws
from ..trying import methods_of
from . import readme
from .findings import Finding, line, show


def declare(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("distribution", help="an installed distribution, such as midstep-min-p")
    parser.add_argument(
        "rewards",
        nargs=REMAINDER,
        metavar="--REWARD.PARAMETER VALUE",
        help="a reward's parameters, such as the url of its server: without those that have no default it is not tried",
    )


def run(given: Namespace) -> int:
    """Print a line for each rule and each law.

    Raises:
        ValueError: no such distribution is installed, it has no plugin, or a parameter is not allowed.
    """
    asked = methods_of(given.rewards).items()
    plugins = entries(given.distribution)
    return show(checked(plugins, {name: named({name: values}, Reward, "reward")[1] for name, values in asked}))


def entries(name: str) -> list[EntryPoint]:
    """Return the plugins of a distribution; `min_p` stands for midstep-min-p.

    Raises:
        ValueError: there is none.
    """
    installed = [entry for entry in entry_points(group="midstep") if entry.dist is not None]
    wanted = _canonical(name)
    found = [entry for entry in installed if _canonical(_owner(entry)) in (wanted, f"midstep-{wanted}")]
    if not found:
        known = ", ".join(sorted({_owner(entry) for entry in installed})) or "none"
        raise ValueError(
            f"no plugin of {name!r} is installed here; installed: {known}; if it is yours, "
            "`pip install -e` its folder, whose pyproject.toml has [project.entry-points.midstep]"
        )
    return found


def checked(plugins: list[EntryPoint], rewards: Mapping[str, Params] = MappingProxyType({})) -> Iterator[Finding]:
    """Check one distribution's plugins, from loading to the laws; rewards are tried with the parameters given."""
    found = catalogue()
    owner = _owner(plugins[0])
    for entry in plugins:
        yield _loads(entry)
    methods = [cls for key, cls in found.methods.items() if key.startswith(f"{owner}:")]
    if not methods:
        why = next((found.refused[key] for key in (owner, *(e.name for e in plugins)) if key in found.refused), None)
        yield Finding(f"{owner} offers methods", why or "return them from a hook, and see MIDSTEP and MIDSTEP_PLUGINS")
        return
    for method in methods:
        yield _unique(found, owner, method.name)
        yield from _imports(method)
        for law, keeps in laws(method, rewards.get(method.name)).items():
            yield _tried(f"{method.name}: {law}", keeps)
        if issubclass(method, Reward) and method.remote and method.name not in rewards:
            yield Finding(f"{method.name}: a server scores, so nothing was; say where it is: {_options(method)}")
    page = _readme(plugins[0])
    if page is not None:
        yield from readme.compared(page, methods)


def _loads(entry: EntryPoint) -> Finding:
    about = f"{_owner(entry)}: {entry.value} loads, and is written for seam {SEAM}"
    try:
        seam = getattr(entry.load(), "SEAM", None)
    except Exception as error:  # a stranger's code
        return Finding(about, f"{line(error)}; mend what {entry.value} imports, or the entry point's name")
    if seam != SEAM:
        given = "has no SEAM" if seam is None else f"has SEAM = {seam!r}"
        return Finding(about, f"{entry.value} {given}; write `SEAM = {SEAM}` in it")
    return Finding(about)


def _unique(found: Catalogue, owner: str, name: str) -> Finding:
    about = f"{name}: no other distribution has a method of this name"
    return Finding(about, None if found.distribution.get(name) == owner else found.refused.get(name, "rename it"))


def _options(method: type[Reward]) -> str:
    needed = [name for name, field in method.Params.model_fields.items() if field.is_required()]
    return " ".join(f"--{method.name}.{name} ..." for name in needed or ["PARAMETER"])


def _imports(method: type[Method]) -> Iterator[Finding]:
    """Resolve what an engine would only look for when it runs on a GPU."""
    if issubclass(method, Sampler) and method.rule is not None:
        yield _tried(f"{method.name}: its rule {method.rule} is there", partial(operation, method.rule))


def _tried(about: str, keeps: Any) -> Finding:
    try:
        keeps()
    except Exception as error:  # a stranger's code: whatever it raises is a broken law
        return Finding(about, str(error) if isinstance(error, AssertionError) else line(error))
    return Finding(about)


def _readme(entry: EntryPoint) -> Path | None:
    """Return the README of an editable installation, or None."""
    module = importlib.import_module(entry.module)
    folder = Path(module.__file__ or ".").resolve().parents[1]
    page = folder / "README.md"
    return page if page.exists() and (folder / "pyproject.toml").exists() else None


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
