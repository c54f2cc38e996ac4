"""What a server's searches share: its rewards, its limits, and what it lets them name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import randbits
from typing import Any

from ..beside import Reward, Search, Selector
from ..configuration import Configuration
from ..entry import KEY
from ..methods import Params
from ..plugins import catalogue
from ..requests import parse
from ..searching import Patience, served
from ..searching.limits import check_width
from ..searching.naming import named
from .body import Asked, AskedPatience


@dataclass(frozen=True)
class Plan:
    """A search that this server has agreed to; the fields are those of `midstep.search`."""

    search: str
    plan: Mapping[str, Mapping[str, Any]]
    reward: Reward | None
    patience: Mapping[str, Any]
    selector: Mapping[str, Any] | None
    separator: str | list[str]
    seed: int
    budget: int | None
    sampling: Mapping[str, Any]
    methods: Mapping[str, Any]


class Service:
    """The searches of one server process.

    Args:
        configuration: the server's.
        model: the name under which the model is served, for the metrics.
    """

    def __init__(self, configuration: Configuration, model: str) -> None:
        self.configuration, self.model = configuration, model
        self.running: set[asyncio.Task[Any]] = set()
        self._rewards: dict[str, tuple[Reward, Patience]] = {}

    def admit(self, asked: Asked) -> Plan:
        """Return the search that a request asks for.

        Raises:
            ValueError: it is not installed, not allowed, or beyond the server's limits; the text says what is.
        """
        limits = self.configuration.limits
        if asked.n > limits.n:
            raise ValueError(f"n = {asked.n}; allowed on this server: {limits.n} (limits.n)")
        plan = {name: dict(values or {}) for name, values in asked.search.items()}
        finder, params = named(plan, Search, "search")
        self._check_allowed(*plan, *(asked.selector or ()))
        if asked.most is not None:
            plan[next(iter(plan))] |= _longest(finder, plan, asked.most)
            finder, params = named(plan, Search, "search")
        check_width(finder, params, limits)
        if asked.n > finder.width(params):
            width = finder.width(params)
            raise ValueError(f"n = {asked.n}; this search has {width} answers at most: ask for fewer, or widen it")
        if asked.selector is not None:
            _check_open(named(asked.selector, Selector, "selector")[1])
        _check_open(params)
        if asked.reward is None and finder.needs_reward:
            raise ValueError(f"{finder.name} goes by a reward, and none is named; {self._known()}")
        parse({KEY: json.dumps({"methods": asked.methods})} if asked.methods else {}, self.configuration)
        reward, patience = (None, Patience()) if asked.reward is None else self._reward(asked.reward)
        return Plan(
            search=finder.name,
            plan=plan,
            reward=reward,
            patience=_bounded(asked.patience, patience),
            selector=asked.selector,
            separator=asked.separator,
            seed=asked.seed if asked.seed is not None else randbits(31),
            budget=asked.budget,
            sampling=asked.sampling,
            methods=asked.methods,
        )

    async def close(self) -> None:
        """End every search, and let go of the rewards."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await asyncio.gather(*(reward.close() for reward, _ in self._rewards.values()), return_exceptions=True)

    def _reward(self, name: str) -> tuple[Reward, Patience]:
        if name not in self._rewards:
            self._rewards[name] = served(name, self.configuration)
        return self._rewards[name]

    def _known(self) -> str:
        return f"this server's own rewards: {', '.join(sorted(self.configuration.rewards)) or 'none'}"

    def _check_allowed(self, *names: str) -> None:
        allow = self.configuration.allow
        if allow is None:
            return
        allowed = {catalogue().find(name) for name in allow}
        for name in names:
            if catalogue().find(name) not in allowed:
                known = ", ".join(sorted(allow)) or "none"
                raise ValueError(f"{name} is not allowed on this server; allowed: {known}")


def _check_open(params: Params) -> None:
    """Refuse what a request says of a parameter that is the operator's: what holds foreign code, for one."""
    for name in params.model_fields_set:
        extra = type(params).model_fields[name].json_schema_extra
        if isinstance(extra, dict) and extra.get("operator"):
            raise ValueError(f"{name} = {getattr(params, name)!r}: no request may set this; leave it out")


def _longest(finder: type[Search], plan: Mapping[str, Mapping[str, Any]], most: int) -> dict[str, int]:
    """Return the search's own `max_tokens`, which is what OpenAI's says of one answer."""
    ((name, values),) = plan.items()
    if "max_tokens" not in finder.Params.model_fields:
        raise ValueError(f"max_tokens = {most}: {name} does not take it; leave it out")
    own = values.get("max_tokens", most)
    if own != most:
        raise ValueError(f"max_tokens = {most}, and {name}.max_tokens = {own}; send one of them")
    return {"max_tokens": most}


def _bounded(asked: AskedPatience, own: Patience) -> dict[str, Any]:
    """Return the server's patience with what a request may change: less of it, and the policy."""
    found = own.model_dump()
    for name, value in asked.model_dump(exclude_none=True).items():
        if name != "gone" and value > found[name]:
            raise ValueError(f"patience.{name} = {value}; allowed on this server: up to {found[name]}")
        found[name] = value
    return found
