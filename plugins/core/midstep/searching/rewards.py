"""Finds the reward that somebody names: one in hand, a function, an installed one, or one of the server's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..beside import Reward
from ..configuration import Configuration, NamedReward
from ..methods import Params
from ..plugins import catalogue
from .naming import checked, named
from .scoring import CallableReward, Patience, Scoring

# What may stand for a reward in Python: see `reward`.
Rewarding = Reward | Scoring | str | Mapping[str, Mapping[str, Any]]


def reward(what: Rewarding) -> tuple[Reward, bool]:
    """Return a reward, and whether it was made here, so that whoever asked must close it.

    Args:
        what: a `Reward`, a function of prompt and steps, an installed reward's name, or that name with its parameters
            as in {"qwen_prm": {"url": ...}}.

    Raises:
        ValueError: no such reward is installed, or a parameter is not allowed.
    """
    if isinstance(what, Reward):
        return what, False
    if isinstance(what, str | Mapping):
        kind, params = named({what: {}} if isinstance(what, str) else what, Reward, "reward")
        return kind(params), True
    return CallableReward(what), True


def served(name: str, configuration: Configuration) -> tuple[Reward, Patience]:
    """Return the reward that a request names on a server, and how it is asked; whoever asked must close it.

    A request names one of `[rewards]` in the server's configuration, or an installed reward that needs no parameters:
    where a reward's server is, is never a client's word.

    Raises:
        ValueError: there is no such reward on this server, or it may not be named.
    """
    kind, params, patience = named_reward(name, configuration)
    return kind(params), patience


def named_reward(name: str, configuration: Configuration) -> tuple[type[Reward], Params, Patience]:
    """Return what `served` makes a reward of; nothing is made.

    Raises:
        ValueError: as `served`.
    """
    if name in configuration.rewards:
        return _checked(configuration.rewards[name])
    ours = ", ".join(sorted(configuration.rewards)) or "none"
    if configuration.allow is not None and name not in configuration.allow:
        raise ValueError(f"reward {name!r} is not allowed on this server; its own: {ours}")
    try:
        return *named({name: {}}, Reward, "reward"), Patience()
    except ValueError as error:
        installed = [n for n, c in catalogue().methods.items() if issubclass(c, Reward) and ":" not in n]
        known = f"this server's own rewards: {ours}; installed: {', '.join(sorted(installed)) or 'none'}"
        raise ValueError(f"reward {name!r}: {error}; {known}") from error


def check_reward(reward: NamedReward) -> tuple[Reward, Patience]:
    """Make a configured reward, and how it is asked.

    Raises:
        ValueError: it is not installed, or a parameter is not allowed.
    """
    kind, params, patience = _checked(reward)
    return kind(params), patience


def _checked(reward: NamedReward) -> tuple[type[Reward], Params, Patience]:
    return *named({reward.use: reward.params}, Reward, "reward"), checked(Patience, reward.patience, "patience")
