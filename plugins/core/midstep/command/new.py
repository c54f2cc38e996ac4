"""Write a distribution with a method that works: samplers/NAME, logits_processors/NAME or reward_hooks/stops/NAME."""

from __future__ import annotations

import keyword
import re
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path, PurePosixPath
from string import Template

# The folder that the methods of a kind lie in, and that of its templates.
KINDS: Mapping[str, str] = {
    "samplers": "samplers",
    "logits_processors": "logits_processors",
    "reward_hooks/stops": "stops",
}
PACKAGE = ("__init__.py", "reference.py", "kernel.py")


def declare(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("path", metavar="KIND/NAME", help=f"KIND: {', '.join(KINDS)}; NAME: lower_case")


def run(given: Namespace) -> int:
    """Write the files, and say what comes next.

    Raises:
        ValueError: unknown kind, bad name, or the folder is there already.
    """
    kind, name = split(given.path)
    checkout = find_checkout(Path.cwd())
    root = checkout or Path.cwd()
    folder = root / kind / name
    if folder.exists():
        raise ValueError(f"{folder} exists already; choose another name, or remove it")
    written = sources(kind, name, in_checkout=checkout is not None)
    taken = [path for path in written if (root / path).exists()]
    if taken:
        raise ValueError(f"{root / taken[0]} exists already; choose another name, or remove it")
    for path, text in written.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
        print(path)
    for line in _next(kind, name, checkout is not None):
        print(line)
    return 0


def split(path: str) -> tuple[str, str]:
    """Return kind and name.

    Raises:
        ValueError: there is no such kind, or the name is not one.
    """
    kind, _, name = path.rstrip("/").rpartition("/")
    if kind not in KINDS:
        raise ValueError(f"{path!r} is of no kind that is known; write one of {', '.join(f'{k}/NAME' for k in KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is not a method's name; write lower case, digits and single '_', such as min_p")
    return kind, name


def find_checkout(start: Path) -> Path | None:
    """Return the midstep checkout that `start` lies in, or None."""
    return next((folder for folder in (start, *start.parents) if (folder / "plugins/core/midstep").is_dir()), None)


def sources(kind: str, name: str, *, in_checkout: bool) -> dict[str, str]:
    """Return the text of each file of a new distribution, by its path from the root."""
    own, module = PurePosixPath(kind) / name, f"midstep_{name}"
    here = KINDS[kind]
    written = {str(own / "pyproject.toml"): pyproject(kind, name)}
    written[str(own / "README.md")] = _fill("all/README.md", kind, name)
    written |= {str(own / module / file): _fill(f"{here}/{file}", kind, name) for file in PACKAGE}
    tests = PurePosixPath("tests") / kind if in_checkout else own / "tests"
    written[str(tests / f"test_{name}.py")] = _fill(f"{here}/test.py", kind, name)
    written[str(tests / f"test_{name}_kernel.py")] = _fill(f"{here}/test_kernel.py", kind, name)
    if in_checkout:
        written[str(tests / f"test_{name}_compile.py")] = _fill("all/test_compile.py", kind, name)
    else:
        for file in ("conftest.py", "kernel_cases.py", "test_laws.py"):
            written[str(tests / file)] = _fill(f"alone/{file}", kind, name)
    return written


def pyproject(kind: str, name: str) -> str:
    """Return the pyproject.toml of a new distribution."""
    return _fill("all/pyproject.toml", kind, name)


def _fill(template: str, kind: str, name: str) -> str:
    templates = files("midstep.command") / "templates"
    words = tomllib.loads((templates / KINDS[kind] / "words.toml").read_text(encoding="utf-8"))
    words["table"] = "| parameter | what it sets |\n|---|---|\n" + words["table"]
    text = (templates / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(
        words,
        name=name,
        module=f"midstep_{name}",
        distribution=f"midstep-{name.replace('_', '-')}",
        class_name="".join(part.capitalize() for part in name.split("_")),
    )


def _next(kind: str, name: str, in_checkout: bool) -> list[str]:
    distribution = f"midstep-{name.replace('_', '-')}"
    if in_checkout:
        return [f"It works as it is: ./test {name}", f"Yours go where it says so: grep -rn YOURS {kind}/{name} tests"]
    return [
        f"It works as it is: pip install -e {kind}/{name} && pytest {kind}/{name} && midstep check {distribution}",
        f"Yours go where it says so: grep -rn YOURS {kind}/{name}",
    ]
