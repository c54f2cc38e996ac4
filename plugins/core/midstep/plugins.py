"""Finds the installed plugins. Nothing here runs while a model decodes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from types import MappingProxyType

import pluggy

from . import hookspecs
from .beside import Reward, Search, Selector
from .methods import SEAM, LogitsProcessor, Method, Sampler, StopController
from .watching.method import StepReward

logger = logging.getLogger("midstep")

HOOKS: Mapping[str, tuple[type[Method], ...]] = MappingProxyType(
    {
        "logits_processors": (LogitsProcessor,),
        "samplers": (Sampler,),
        "reward_hooks": (StopController, Reward, Search, Selector),
    }
)

OWN = "midstep"  # the distribution of the methods that are part of the core
BUILT_IN: tuple[type[Method], ...] = (StepReward,)

pm = pluggy.PluginManager("midstep")
pm.add_hookspecs(hookspecs)


@dataclass(frozen=True)
class Catalogue:
    """The methods that requests may name, and why the others may not be named."""

    methods: Mapping[str, type[Method]]
    refused: Mapping[str, str]
    distribution: Mapping[str, str]

    def find(self, name: str) -> type[Method]:
        """Return the method called `name` (or `distribution:name`).

        Raises:
            ValueError: it is not installed, did not load, or two distributions provide it.
        """
        if name in self.methods:
            return self.methods[name]
        if name in self.refused:
            raise ValueError(self.refused[name])
        if os.environ.get("MIDSTEP") == "off":
            raise ValueError(
                f"method {name!r} is not available: the server runs with MIDSTEP=off; unset it and restart"
            )
        installed = ", ".join(sorted(n for n in self.methods if ":" not in n)) or "none"
        raise ValueError(
            f"no method named {name!r} is installed; installed: {installed}; "
            f"if it exists, `pip install midstep-{name.replace('_', '-')}` and restart the server"
        )


def catalogue() -> Catalogue:
    """Load every installed plugin, once, and return the methods by name."""
    with _loading:
        return _loaded()


def forget() -> None:
    """Look for the plugins anew at the next call: tests install some on the way."""
    _loaded.cache_clear()


# The first calls may come from several threads, and pluggy takes a plugin once.
_loading = threading.RLock()


@cache
def _loaded() -> Catalogue:
    refused: dict[str, str] = {}
    if os.environ.get("MIDSTEP") != "off":
        allowed = {n.strip() for n in os.environ.get("MIDSTEP_PLUGINS", "").split(",") if n.strip()}
        for entry in entry_points(group="midstep"):
            distribution = entry.dist.name if entry.dist else entry.value
            if (not allowed or {entry.name, distribution} & allowed) and not pm.has_plugin(distribution):
                _load(entry, distribution, refused)
    found: dict[str, list[tuple[str, type[Method]]]] = {}
    if os.environ.get("MIDSTEP") != "off":
        found |= {cls.name: [(OWN, cls)] for cls in BUILT_IN}
    for hook, kinds in HOOKS.items():
        for implementation in getattr(pm.hook, hook).get_hookimpls():
            try:
                classes = list(implementation.function())
                for cls in classes:
                    _check(cls, hook, kinds)
            except Exception as error:  # a stranger's code: whatever it raises, the others must work
                _refuse(refused, implementation.plugin_name, implementation.plugin_name, error)
                continue
            for cls in classes:
                found.setdefault(cls.name, []).append((implementation.plugin_name, cls))
    return _resolve(found, refused)


def _load(entry: EntryPoint, distribution: str, refused: dict[str, str]) -> None:
    try:
        plugin = entry.load()
        seam = getattr(plugin, "SEAM", SEAM)
        if seam != SEAM:
            raise ImportError(f"it is written for seam {seam}, this midstep has seam {SEAM}")
        pm.register(plugin, name=distribution)
        pm.check_pending()
    except Exception as error:
        if pm.has_plugin(distribution):
            pm.unregister(name=distribution)
        _refuse(refused, entry.name, distribution, error)


def _refuse(refused: dict[str, str], name: str, distribution: str, error: Exception) -> None:
    refused[name] = (
        f"method {name!r} did not load: {type(error).__name__}: {error}; "
        f"mend it with `pip install --upgrade {distribution}` and restart the server"
    )
    logger.warning("the plugin of %s did not load: %s: %s", distribution, type(error).__name__, error)


def _check(cls: type[Method], hook: str, kinds: tuple[type[Method], ...]) -> None:
    """Raise TypeError where a class is not what its hook promises."""
    if not (isinstance(cls, type) and issubclass(cls, kinds)):
        raise TypeError(f"{hook}() returned {cls!r}; allowed: subclasses of {', '.join(k.__name__ for k in kinds)}")
    if isabstract(cls):
        raise TypeError(f"{cls.__name__} leaves {', '.join(sorted(cls.__abstractmethods__))} undefined")
    if not getattr(cls, "name", "").isidentifier():
        raise TypeError(
            f"{cls.__name__}.name is {getattr(cls, 'name', None)!r}; a name is an identifier such as 'min_p'"
        )
    if issubclass(cls, Sampler) and cls.keeps() == (cls.sample is not Sampler.sample):
        raise TypeError(f"{cls.__name__} must define exactly one of keep() and sample()")


def _resolve(found: Mapping[str, list[tuple[str, type[Method]]]], refused: dict[str, str]) -> Catalogue:
    methods: dict[str, type[Method]] = {}
    distribution: dict[str, str] = {}
    for name, offers in found.items():
        for owner, cls in offers:
            methods[f"{owner}:{name}"] = cls
            distribution[f"{owner}:{name}"] = owner
        if len(offers) == 1:
            distribution[name], methods[name] = offers[0]
        else:
            owners = sorted(owner for owner, _ in offers)
            ways = " or ".join(f"{owner}:{name}" for owner in owners)
            refused[name] = f"method {name!r} is provided by {' and by '.join(owners)}; name it {ways}"
            logger.warning("%s", refused[name])
    return Catalogue(methods, refused, distribution)
