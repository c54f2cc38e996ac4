"""The laws that every method keeps. `check(MyMethod)` is the first test of every plugin, ours and an outsider's."""

from __future__ import annotations

from ..beside import Reward, Search, Selector
from ..methods import LogitsProcessor, Method, Sampler, StopController
from . import beside, laws
from .examples import parameters

__all__ = ["check", "parameters"]


def check(method: type[Method]) -> None:
    """Check `method` against every law of its kind.

    Raises:
        AssertionError: a law is broken; the text names the law, the parameters and the row.
    """
    laws.declares_itself(method)
    for params in parameters(method):
        if issubclass(method, LogitsProcessor | Sampler | StopController):
            laws.check_token_method(method, params)
        elif issubclass(method, Reward):
            beside.check_reward(method)
        elif issubclass(method, Selector):
            beside.check_selector(method)
        elif issubclass(method, Search):
            beside.check_search(method, params)
