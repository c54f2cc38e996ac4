"""Checks what `midstep search` was asked for, before anything is sent."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from ..beside import Reward, Search, Selector
from ..operation import named as attribute
from ..searching import Patience
from ..searching.naming import checked, named
from .prompts import Task, read
from .running import Plan

# What stands behind the file beside the search itself: --reward.url, --sampling.temperature ...
GROUPS = ("reward", "selector", "patience", "sampling", "method")


def tasks_of(given: Namespace) -> list[Task]:
    """Return the prompts of the file.

    Raises:
        ValueError: they cannot be searched, or an option is not allowed.
    """
    if given.out is None:
        raise ValueError("no --out FILE is named for the results")
    if given.out.resolve() == given.file.resolve():
        raise ValueError(f"{given.out} is the file of the prompts; name another --out")
    for name in ("concurrency", "give_up"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(given, name)}; allowed: 1 or more")
    if given.engine == "sglang" and given.model is not None:
        raise ValueError(f"--model {given.model}: SGLang serves one model; leave it out")
    try:
        return read(given.file)
    except OSError as error:
        raise ValueError(f"{given.file} cannot be read: {error.strerror}") from error


def plan_of(given: Namespace, asked: Mapping[str, Mapping[str, Any]]) -> Plan:
    """Check all that was asked for, and return what is done with each prompt.

    Args:
        given: the options that argparse knows.
        asked: the others by what is before their dot: the search, and `GROUPS`.

    Raises:
        ValueError: something is not allowed.
    """
    search = {name: params for name, params in asked.items() if name not in GROUPS}
    if len(search) != 1:
        have = ", ".join(search) or "none"
        raise ValueError(f"{len(search)} searches are named ({have}); name one behind FILE, as in --best-of-n.n 16")
    finder, params = named(search, Search, "search")
    options: dict[str, Any] = {"budget": given.budget, "separator": given.separator or ["\n\n"]}
    if given.budget is not None and given.budget < 1:
        raise ValueError(f"--budget {given.budget}; allowed: 1 or more tokens")
    if not all(options["separator"]):
        raise ValueError("--separator ''; allowed: a text that is not empty")
    options |= {"sampling": asked.get("sampling", {}), "patience": asked.get("patience", {})}
    options |= {"methods": asked.get("method", {})}
    checked(Patience, options["patience"], "patience")
    for group in ("reward", "selector"):
        if group in asked and getattr(given, group) is None:
            raise ValueError(f"--{group}.{next(iter(asked[group]), '')} is set, and no --{group} NAME")
    if given.selector is not None:
        options["selector"] = {given.selector.replace("-", "_"): asked.get("selector", {})}
        named(options["selector"], Selector, "selector")
    if given.reward is None and finder.needs_reward:
        raise ValueError(f"{finder.name} goes by a reward; name one with --reward")
    reward = None if given.reward is None else _reward(given.reward, asked.get("reward", {}))
    search = {finder.name: params.model_dump()}
    return Plan(search, reward, given.seed, options, given.candidates, given.trace, given.give_up)


def _reward(name: str, params: Mapping[str, Any]) -> Any:
    """Return an installed reward's name with its parameters, or the function that is named as module:function."""
    module, _, function = name.partition(":")
    if not function or not module.replace(".", "_").isidentifier():
        asked = {name.replace("-", "_"): params}
        named(asked, Reward, "reward")
        return asked
    if params:
        raise ValueError(f"--reward {name} is a function, which has no parameters")
    sys.path.insert(0, os.getcwd())
    try:
        found = attribute(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--reward {name} is not found: {error}") from error
    if not callable(found):
        raise ValueError(f"--reward {name} is no function")
    return found
