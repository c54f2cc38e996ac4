"""List the installed methods by kind, or say everything about one."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from ..beside import Reward, Search, Selector
from ..errors import describe
from ..methods import LogitsProcessor, Method, Sampler, StopController
from ..plugins import Catalogue, catalogue
from ..watching.method import Watch

KINDS: Mapping[str, type[Method]] = {
    "logits processors": LogitsProcessor,
    "samplers": Sampler,
    "stops": StopController,
    "watches": Watch,
    "rewards": Reward,
    "selectors": Selector,
    "searches": Search,
}


def declare(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("name", nargs="?", help="a method; without it, all are listed")


def run(given: Namespace) -> int:
    """Print the list, or one method.

    Raises:
        ValueError: the method is not installed, or did not load.
    """
    found = catalogue()
    for text in listed(found) if given.name is None else described(found, given.name):
        print(text)
    return 0


def listed(found: Catalogue) -> list[str]:
    """Return the lines of the list; what did not load comes last, with its reason."""
    lines = []
    for title, kind in KINDS.items():
        # a name that two distributions provide is there only as distribution:name
        names = sorted(
            name
            for name, cls in found.methods.items()
            if issubclass(cls, kind) and (":" not in name or cls.name in found.refused)
        )
        lines += [title] if names else []
        width = max(map(len, names), default=0)
        lines += [f"  {n:{width}}  {_first(found.methods[n])}  ({found.distribution[n]})" for n in names]
    lines += [f"refused: {reason}" for _, reason in sorted(found.refused.items())]
    return lines or ["no method is installed; one is: pip install midstep-min-p"]


def described(found: Catalogue, name: str) -> list[str]:
    """Return the lines about one method: kind, distribution, docstrings, parameters."""
    method = found.find(name)
    kind = next(title for title, cls in KINDS.items() if issubclass(method, cls))
    lines = [f"{name}: one of the {kind}, from {found.distribution[name]}", "", inspect.getdoc(method) or ""]
    module = inspect.getdoc(inspect.getmodule(method))
    lines += ["", module] if module else []
    lines += ["", "parameters" if method.Params.model_fields else "no parameters"]
    for field_name, field in method.Params.model_fields.items():
        lines += [f"  {describe(field_name, field)}", f"      {field.description}"]
    return lines


def _first(method: type[Method]) -> str:
    return (inspect.getdoc(method) or "").splitlines()[0]
