"""The three hooks that a plugin may implement, named as the folders of this repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .methods import Method

hookspec = pluggy.HookspecMarker("midstep")
hookimpl = pluggy.HookimplMarker("midstep")


@hookspec
def logits_processors() -> Sequence[type[Method]]:
    """Return this plugin's LogitsProcessor classes: they reshape the next-token logits."""
    raise NotImplementedError


@hookspec
def samplers() -> Sequence[type[Method]]:
    """Return this plugin's Sampler classes: keep rules, and ways to choose the token."""
    raise NotImplementedError


@hookspec
def reward_hooks() -> Sequence[type[Method]]:
    """Return this plugin's StopController, Reward, Search and Selector classes."""
    raise NotImplementedError
