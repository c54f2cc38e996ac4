"""The laws that every method keeps. `check(MyMethod)` is the first test of every plugin, ours and an outsider's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from ..beside import Reward, Search, Selector
from ..methods import Method, Params
from ..watching.method import Watch
from . import beside, rewards
from .examples import parameters
from .laws import OF_TOKEN_METHODS, Trial, declares_itself, trials

__all__ = ["check", "laws", "parameters"]


def check(method: type[Method], params: Params | None = None) -> None:
    """Check `method` against every law of its kind.

    Args:
        method: the class.
        params: of a remote reward: where its server is.

    Raises:
        AssertionError: a law is broken; the text names the law, the parameters and the row.
    """
    for keeps in laws(method, params).values():
        keeps()


def laws(method: type[Method], params: Params | None = None) -> Mapping[str, Callable[[], None]]:
    """Return the laws of the method's kind by name; each raises AssertionError where it is broken.

    A remote reward is tried only with `params`: what an example names is not there.
    """
    declared = {"says its name, what it does and what each parameter sets": partial(declares_itself, method)}
    if issubclass(method, Reward):
        given = [params] if params is not None else [] if method.remote else parameters(method)
        return declared | (_tried(rewards.OF_REWARDS, method, given) if given else {})
    if issubclass(method, Selector):
        return declared | _tried(beside.OF_SELECTORS, method, parameters(method))
    if issubclass(method, Search):
        return declared | _tried(beside.OF_SEARCHES, method, parameters(method))
    if issubclass(method, Watch):
        return declared
    tried = cache(lambda: tuple(trials(method)))
    return {**declared, **{name: partial(_hold, law, tried) for name, law in OF_TOKEN_METHODS.items()}}


def _tried(
    found: Mapping[str, Callable[[Any, Params], None]], method: type[Method], tried: Sequence[Params]
) -> dict[str, Callable[[], None]]:
    return {name: partial(_each, law, method, tried) for name, law in found.items()}


def _each(law: Callable[[Any, Params], None], method: type[Method], tried: Sequence[Params]) -> None:
    for params in tried:
        law(method, params)


def _hold(law: Callable[[Trial], None], tried: Callable[[], Sequence[Trial]]) -> None:
    for trial in tried():
        law(trial)
