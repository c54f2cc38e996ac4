"""Reads what a request asks of midstep: one dictionary, the same for every engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .configuration import Configuration, Preset
from .errors import explain, fields, shown
from .methods import LogitsProcessor, Method, Params, Sampler, StopController
from .plugins import catalogue

KEY = "midstep"
TOKEN_KINDS = (LogitsProcessor, Sampler, StopController)


class Request(BaseModel):
    """What one request asks of midstep. A method at null is off, also where a preset or the server turns it on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    preset: str | None = None
    methods: dict[str, dict[str, Any] | None] = {}
    order: list[str] = []
    on_error: Literal["stop", "continue"] = "stop"
    trace: bool = False


@dataclass(frozen=True)
class Asked:
    """What a request asks of midstep once presets and defaults are merged in; every parameter is checked.

    `by_default` names the methods that only the server turned on: they are skipped, not refused, where they cannot be served.
    """

    methods: Mapping[str, Mapping[str, Any]]
    order: tuple[str, ...] = ()
    on_error: Literal["stop", "continue"] = "stop"
    trace: bool = False
    by_default: frozenset[str] = frozenset()


def request(preset: str | None = None, /, *, order: list[str] | None = None, on_error: Literal["stop", "continue"] = "stop",
            trace: bool = False, **methods: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the entry that carries `methods` to an engine, checked against what is installed here.

    Example:
        >>> request(min_p={"p": 0.1})
        {'midstep': '{"methods":{"min_p":{"p":0.1}}}'}

    Raises:
        ValueError: a method is not installed here, or a parameter is not allowed.
    """
    asked = Request(
        preset=preset, methods={k: None if v is None else dict(v) for k, v in methods.items()}, order=order or [],
        on_error=on_error, trace=trace,
    )
    for name, value in asked.methods.items():
        validate(name, value)
    return {KEY: asked.model_dump_json(exclude_defaults=True)}


def parse(extra: Mapping[str, Any] | None, configuration: Configuration | None = None) -> Asked | None:
    """Read the entry that `request` made, its flat form, or the name of a preset; None where there is none.

    The server's presets and defaults are merged in: the request wins over its preset, the preset over the defaults.

    Raises:
        ValueError: the entry is malformed or too large, names no installed method, or has bad parameters.
    """
    configuration = configuration or Configuration()
    sent = _read(extra or {}, configuration.limits.json_bytes)
    chain = [configuration.defaults]
    if sent is not None and sent.preset is not None:
        if sent.preset not in configuration.presets:
            known = ", ".join(sorted(configuration.presets)) or "none"
            raise ValueError(f"midstep: no preset named {shown(sent.preset)} on this server; presets: {known}")
        chain.append(configuration.presets[sent.preset])
    chosen = {name for part in [*chain[1:], sent or Request()] for name, value in part.methods.items() if value is not None}
    merged = _merge(chain, sent or Request())
    for name, value in merged.methods.items():
        validate(name, value)
    _check_shape(merged, configuration.limits.methods)
    if not merged.methods and not merged.trace:
        return None
    return Asked(
        methods={name: value or {} for name, value in merged.methods.items()}, order=tuple(merged.order),
        on_error=merged.on_error, trace=merged.trace, by_default=frozenset(merged.methods) - chosen,
    )


def validate(name: str, value: Mapping[str, Any] | None) -> tuple[type[Method], Params]:
    """Return the method called `name` and its checked parameters.

    Raises:
        ValueError: no such method, not one that a request may name, or a parameter is not allowed.
    """
    method = catalogue().find(name)
    if not issubclass(method, TOKEN_KINDS):
        raise ValueError(f"midstep: {name} is a {method.__mro__[1].__name__.lower()}; it is not named in a plain request")
    try:
        # in JSON's own types, so that a list may stand for a tuple and nothing else is converted
        return method, method.Params.model_validate_json(json.dumps(value or {}, allow_nan=False))
    except ValidationError as error:
        raise ValueError(f"midstep: {explain(error, [name])}; parameters of {name}: {fields(method.Params)}") from error


def check_preset(preset: Preset) -> None:
    """Raise ValueError where `preset` names a method or a parameter that a request could not."""
    for name, value in preset.methods.items():
        validate(name, value)


def _read(extra: Mapping[str, Any], limit: int) -> Request | None:
    flat = {key: value for key, value in extra.items() if isinstance(key, str) and key.startswith(KEY + ".")}
    entry = extra.get(KEY)
    if entry is None and not flat:
        return None
    if isinstance(entry, str):
        entry = _decode(entry, limit)
    elif entry is not None and not isinstance(entry, Mapping):
        raise ValueError(f"midstep: {shown(entry)} is neither a JSON object, a preset's name nor absent; see midstep.request()")
    try:
        return Request.model_validate(_unflatten(dict(entry or {}), flat))
    except ValidationError as error:
        hint = "methods go under \"methods\": " + '{"methods": {"min_p": {"p": 0.1}}}'
        raise ValueError(f"midstep: {explain(error)}; {hint}") from error


def _decode(text: str, limit: int) -> Mapping[str, Any]:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise ValueError(f"midstep: the entry has {size} bytes; allowed on this server: {limit} (limits.json_bytes)")
    if text.isidentifier() or not text.lstrip().startswith("{"):
        return {"preset": text}
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("midstep: the entry is nested too deeply; a method's parameters need two levels") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"midstep: {shown(text)} is not JSON: {error}; make it with midstep.request()") from error
    return value  # type: ignore[no-any-return]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise ValueError(f"midstep: {shown(sorted(twice)[0])} stands twice in one JSON object; name it once")
    return dict(pairs)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"midstep: {name} is not a number that JSON allows; send a finite number")


def _unflatten(entry: dict[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys of people with curl: `midstep.min_p.p = 0.1`, `midstep.trace = true`."""
    if not flat:
        return entry
    methods = {name: dict(value) if isinstance(value, Mapping) else value for name, value in entry.get("methods", {}).items()}
    for key, value in flat.items():
        name, _, field = key.removeprefix(KEY + ".").partition(".")
        if name in Request.model_fields and not field:
            entry[name] = value
        elif field and "." not in field and methods.setdefault(name, {}) is not None:
            methods[name][field] = value
        else:
            raise ValueError(f"midstep: the key {shown(key)} is not allowed; write it as midstep.<method>.<parameter>")
    return {**entry, "methods": methods}


def _merge(chain: list[Preset], asked: Request) -> Request:
    methods: dict[str, dict[str, Any] | None] = {}
    settings: dict[str, Any] = {}
    for part in [*chain, asked]:
        for name, value in part.methods.items():
            methods[name] = None if value is None else {**(methods.get(name) or {}), **value}
        given = part.model_fields_set & {"order", "on_error", "trace"}
        settings |= {key: getattr(part, key) for key in given if getattr(part, key) is not None}
    on = {name: value for name, value in methods.items() if value is not None}
    return Request.model_validate({**settings, "preset": asked.preset, "methods": on})


def _check_shape(asked: Request, limit: int) -> None:
    if len(asked.methods) > limit:
        raise ValueError(f"midstep: {len(asked.methods)} methods in one request; allowed on this server: {limit} (limits.methods)")
    stray = [name for name in asked.order if name not in asked.methods]
    if stray or len(set(asked.order)) < len(asked.order):
        raise ValueError(f"midstep: order = {shown(asked.order)}; allowed: each of {sorted(asked.methods)} at most once")
    choosers = [n for n in sorted(asked.methods) if _chooses(catalogue().find(n))]
    if len(choosers) > 1:
        raise ValueError(f"midstep: {' and '.join(choosers)} both choose the token; ask for one of them")


def _chooses(method: type[Method]) -> bool:
    return issubclass(method, Sampler) and not method.keeps()
