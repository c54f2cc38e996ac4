"""The laws that every method keeps. `check(MyMethod)` is the first test of every plugin, ours and an outsider's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

from ..beside import Reward, Search, Selector
from ..methods import Method
from . import beside
from .examples import parameters
from .laws import OF_TOKEN_METHODS, Trial, declares_itself, trials

__all__ = ["check", "laws", "parameters"]


def check(method: type[Method]) -> None:
    """Check `method` against every law of its kind.

    Raises:
        AssertionError: a law is broken; the text names the law, the parameters and the row.
    """
    for keeps in laws(method).values():
        keeps()


def laws(method: type[Method]) -> Mapping[str, Callable[[], None]]:
    """Return the laws of the method's kind by name; each raises AssertionError where it is broken."""
    declared = {"says its name, what it does and what each parameter sets": partial(declares_itself, method)}
    if issubclass(method, Reward):
        scores = {} if method.remote else {"one finite score per step": partial(_scores, method)}
        return {**declared, **scores}
    if issubclass(method, Selector):
        return {**declared, "one weight per candidate, whatever their order": partial(_selects, method)}
    if issubclass(method, Search):
        return {**declared, "one seed gives one result, within its budget": partial(_searches, method)}
    tried = cache(lambda: tuple(trials(method)))
    return {**declared, **{name: partial(_hold, law, tried) for name, law in OF_TOKEN_METHODS.items()}}


def _hold(law: Callable[[Trial], None], tried: Callable[[], Sequence[Trial]]) -> None:
    for trial in tried():
        law(trial)


def _scores(method: type[Reward]) -> None:
    for params in parameters(method):
        beside.check_reward(method, params)


def _searches(method: type[Search]) -> None:
    for params in parameters(method):
        beside.check_search(method, params)


def _selects(method: type[Selector]) -> None:
    for params in parameters(method):
        beside.check_selector(method, params)
