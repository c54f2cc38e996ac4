"""Reads what a request asks of midstep: one dictionary, the same for every engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from .configuration import Configuration, Preset
from .entry import KEY, Request, read
from .errors import explain, fields, shown
from .methods import LogitsProcessor, Method, Params, Sampler, StopController
from .plugins import catalogue
from .searching.rewards import named_reward
from .watching.method import StepReward, Watch

TOKEN_KINDS = (LogitsProcessor, Sampler, StopController)


@dataclass(frozen=True)
class Asked:
    """What a request asks of midstep once presets and defaults are merged in; every parameter is checked.

    `by_default` names the methods that only the server turned on: they are skipped where they cannot be served.
    """

    methods: Mapping[str, Mapping[str, Any]]
    order: tuple[str, ...] = ()
    on_error: Literal["stop", "continue"] = "stop"
    trace: bool = False
    draw: bool = False
    by_default: frozenset[str] = frozenset()


def request(
    preset: str | None = None,
    /,
    *,
    order: list[str] | None = None,
    on_error: Literal["stop", "continue"] = "stop",
    trace: bool = False,
    draw: bool = False,
    **methods: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Return the entry that carries `methods` to an engine, checked against what is installed here.

    Args:
        draw: midstep draws the tokens even where no method is named: so one seed gives the same in every engine.

    Example:
        >>> request(min_p={"p": 0.1})
        {'midstep': '{"methods":{"min_p":{"p":0.1}}}'}

    Raises:
        ValueError: a method is not installed here, or a parameter is not allowed.
    """
    asked = Request(
        preset=preset,
        methods={k: None if v is None else dict(v) for k, v in methods.items()},
        order=order or [],
        on_error=on_error,
        trace=trace,
        draw=draw,
    )
    for name, value in asked.methods.items():
        validate(name, value)
    return {KEY: asked.model_dump_json(exclude_defaults=True)}


def parse(extra: Mapping[str, Any] | None, configuration: Configuration | None = None) -> Asked | None:
    """Read the entry that `request` made, its flat form, or the name of a preset; None where there is none.

    The server's presets and defaults are merged in: the request wins over its preset, the preset over the defaults.

    Raises:
        ValueError: the entry is malformed or too large, names a method that is not installed or not allowed on this
            server, or has bad parameters.
    """
    configuration = configuration or Configuration()
    sent = read(extra or {}, configuration.limits.json_bytes)
    chain = [configuration.defaults]
    if sent is not None and sent.preset is not None:
        if sent.preset not in configuration.presets:
            known = ", ".join(sorted(configuration.presets)) or "none"
            raise ValueError(f"midstep: no preset named {shown(sent.preset)} on this server; presets: {known}")
        chain.append(configuration.presets[sent.preset])
    own: list[Preset | Request] = [*chain[1:], sent or Request()]
    chosen = {name for part in own for name, value in part.methods.items() if value is not None}
    merged = _only_allowed(_merge(chain, sent or Request()), chosen, configuration.allow)
    for name, value in merged.methods.items():
        params = validate(name, value)[1]
        if name in chosen and isinstance(params, StepReward.Params):
            _check_reward(params.reward, configuration)
    _check_shape(merged, configuration.limits.methods)
    if not merged.methods and not merged.trace and not merged.draw:
        return None
    return Asked(
        methods={name: value or {} for name, value in merged.methods.items()},
        order=tuple(merged.order),
        on_error=merged.on_error,
        trace=merged.trace,
        draw=merged.draw,
        by_default=frozenset(merged.methods) - chosen,
    )


def validate(name: str, value: Mapping[str, Any] | None) -> tuple[type[Method], Params]:
    """Return the method called `name` and its checked parameters.

    Raises:
        ValueError: no such method, not one that a request may name, or a parameter is not allowed.
    """
    method = catalogue().find(name)
    if not issubclass(method, (*TOKEN_KINDS, Watch)):
        raise ValueError(
            f"midstep: {name} is a {method.__mro__[1].__name__.lower()}; it is not named in a plain request"
        )
    try:
        # in JSON's own types, so that a list may stand for a tuple and nothing else is converted
        return method, method.Params.model_validate_json(json.dumps(value or {}, allow_nan=False))
    except ValidationError as error:
        raise ValueError(f"midstep: {explain(error, [name])}; parameters of {name}: {fields(method.Params)}") from error
    except (TypeError, ValueError) as error:
        allowed = fields(method.Params)
        raise ValueError(f"midstep: {name} = {shown(value)}: {error}; parameters of {name}: {allowed}") from error


def _check_reward(name: str, configuration: Configuration) -> None:
    try:
        named_reward(name, configuration)
    except ValueError as error:
        raise ValueError(f"midstep: {StepReward.name}: {error}") from error


def check_preset(preset: Preset) -> None:
    """Raise ValueError where `preset` names a method or a parameter that a request could not."""
    for name, value in preset.methods.items():
        validate(name, value)


def check_allowed(names: Iterable[str]) -> None:
    """Raise ValueError where a server allows a method that does not exist."""
    for name in names:
        catalogue().find(name)


def _only_allowed(asked: Request, chosen: set[str], allow: frozenset[str] | None) -> Request:
    """Return `asked` without the defaults that the server does not allow.

    Raises:
        ValueError: the request, or its preset, chose a method that is not allowed.
    """
    if allow is None:
        return asked
    allowed = {catalogue().find(name) for name in allow}
    stray = {name for name in asked.methods if catalogue().find(name) not in allowed}
    if stray & chosen:
        names = ", ".join(sorted(allow)) or "none"
        raise ValueError(
            f"midstep: {min(stray & chosen)} is not allowed on this server; allowed: {names}. Leave it out, or have "
            "it added to `allow` in the server's midstep.toml"
        )
    left = {name: value for name, value in asked.methods.items() if name not in stray}
    return asked.model_copy(update={"methods": left, "order": [name for name in asked.order if name not in stray]})


def _merge(chain: list[Preset], asked: Request) -> Request:
    methods: dict[str, dict[str, Any] | None] = {}
    settings: dict[str, Any] = {}
    parts: list[Preset | Request] = [*chain, asked]
    for part in parts:
        for name, value in part.methods.items():
            methods[name] = None if value is None else {**(methods.get(name) or {}), **value}
        given = part.model_fields_set & {"order", "on_error", "trace", "draw"}
        settings |= {key: getattr(part, key) for key in given if getattr(part, key) is not None}
    on = {name: value for name, value in methods.items() if value is not None}
    return Request.model_validate({**settings, "preset": asked.preset, "methods": on})


def _check_shape(asked: Request, limit: int) -> None:
    if len(asked.methods) > limit:
        raise ValueError(
            f"midstep: {len(asked.methods)} methods in one request; allowed on this server: {limit} (limits.methods)"
        )
    stray = [name for name in asked.order if name not in asked.methods]
    if stray or len(set(asked.order)) < len(asked.order):
        raise ValueError(
            f"midstep: order = {shown(asked.order)}; allowed: each of {sorted(asked.methods)} at most once"
        )
    choosers = [n for n in sorted(asked.methods) if _chooses(catalogue().find(n))]
    if len(choosers) > 1:
        raise ValueError(f"midstep: {' and '.join(choosers)} both choose the token; ask for one of them")


def _chooses(method: type[Method]) -> bool:
    return issubclass(method, Sampler) and not method.keeps()
