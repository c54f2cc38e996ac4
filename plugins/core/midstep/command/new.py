"""Write a distribution with a method that works: samplers/NAME, reward_hooks/searches/NAME and the other kinds."""

from __future__ import annotations

import keyword
import re
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from string import Template


@dataclass(frozen=True)
class Kind:
    """How the distributions of a kind are written.

    Args:
        templates: the folder of its templates.
        example: the template of the README's example.
        at_tokens: it runs at each token, so that it has a definition and a kernel.
    """

    templates: str
    example: str
    at_tokens: bool


# By the folder that the methods of a kind lie in.
KINDS: Mapping[str, Kind] = {
    "samplers": Kind("samplers", "all/example.py", at_tokens=True),
    "logits_processors": Kind("logits_processors", "all/example.py", at_tokens=True),
    "reward_hooks/stops": Kind("stops", "all/example.py", at_tokens=True),
    "reward_hooks/rewards": Kind("rewards", "rewards/example.py", at_tokens=False),
    "reward_hooks/selectors": Kind("selectors", "selectors/example.py", at_tokens=False),
    "reward_hooks/searches": Kind("searches", "searches/example.py", at_tokens=False),
}


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
    own, tests = PurePosixPath(kind) / name, PurePosixPath("tests") / kind
    package, here, at_tokens = own / f"midstep_{name}", KINDS[kind].templates, KINDS[kind].at_tokens
    if not in_checkout:
        tests = own / "tests"
    templates = {own / "pyproject.toml": "all/pyproject.toml", own / "README.md": "all/README.md"}
    templates |= {package / "__init__.py": f"{here}/__init__.py", tests / f"test_{name}.py": f"{here}/test.py"}
    if at_tokens:
        templates |= {package / file: f"{here}/{file}" for file in ("reference.py", "kernel.py")}
        templates[tests / f"test_{name}_kernel.py"] = f"{here}/test_kernel.py"
    if in_checkout and at_tokens:
        templates[tests / f"test_{name}_compile.py"] = "all/test_compile.py"
    if not in_checkout:
        alone = ("test_laws.py", "conftest.py", "kernel_cases.py") if at_tokens else ("test_laws.py",)
        templates |= {tests / file: f"alone/{file}" for file in alone}
    return {str(path): _fill(template, kind, name) for path, template in templates.items()}


def pyproject(kind: str, name: str) -> str:
    """Return the pyproject.toml of a new distribution."""
    return _fill("all/pyproject.toml", kind, name)


def _fill(template: str, kind: str, name: str) -> str:
    names = {
        "name": name,
        "module": f"midstep_{name}",
        "distribution": f"midstep-{name.replace('_', '-')}",
        "class_name": "".join(part.capitalize() for part in name.split("_")),
    }
    words = tomllib.loads(_read(f"{KINDS[kind].templates}/words.toml"))
    words["table"] = "| parameter | what it sets |\n|---|---|\n" + words["table"]
    words["example"] = Template(_read(f"{KINDS[kind].example}.txt")).substitute(names)
    return Template(_read(f"{template}.txt")).substitute(words, **names)


def _read(path: str) -> str:
    return (files("midstep.command") / "templates" / path).read_text(encoding="utf-8")


def _next(kind: str, name: str, in_checkout: bool) -> list[str]:
    distribution = f"midstep-{name.replace('_', '-')}"
    if in_checkout:
        return [f"It works as it is: ./test {name}", f"Yours go where it says so: grep -rn YOURS {kind}/{name} tests"]
    return [
        f"It works as it is: pip install -e {kind}/{name} && pytest {kind}/{name} && midstep check {distribution}",
        f"Yours go where it says so: grep -rn YOURS {kind}/{name}",
    ]
