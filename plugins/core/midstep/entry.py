"""Reads the entry that a request carries: JSON under one key, a preset's name, or flat keys for people with curl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import explain, shown
from .plugins import catalogue

KEY = "midstep"


class Request(BaseModel):
    """What one request asks of midstep. A method at null is off, also where a preset or the server turns it on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    preset: str | None = None
    methods: dict[str, dict[str, Any] | None] = {}
    order: list[str] = []
    on_error: Literal["stop", "continue"] = "stop"
    trace: bool = False
    draw: bool = False


def read(extra: Mapping[str, Any], limit: int) -> Request | None:
    """Return the entry among an engine's extra arguments, or None.

    Raises:
        ValueError: it is malformed, or has more than `limit` bytes.
    """
    flat = {key: value for key, value in extra.items() if isinstance(key, str) and key.startswith(KEY + ".")}
    entry = extra.get(KEY)
    if entry is None and not flat:
        return None
    if isinstance(entry, str):
        entry = _decode(entry, limit)
    elif entry is not None and not isinstance(entry, Mapping):
        raise ValueError(
            f"midstep: {shown(entry)} is neither a JSON object, a preset's name nor absent; see midstep.request()"
        )
    try:
        return Request.model_validate(_unflatten(dict(entry or {}), flat))
    except ValidationError as error:
        hint = 'methods go under "methods": ' + '{"methods": {"min_p": {"p": 0.1}}}'
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


def _truth(value: Any, annotation: Any) -> Any:
    """Return a flat value; vLLM's `vllm_xargs` makes numbers of truth values."""
    return bool(value) if annotation is bool and isinstance(value, int | float) and value in (0, 1) else value


def _annotation(name: str, field: str) -> Any:
    method = catalogue().methods.get(name)
    known = method.Params.model_fields.get(field) if method is not None else None
    return known.annotation if known is not None else None


def _unflatten(entry: dict[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys of people with curl: `midstep.min_p.p = 0.1`, `midstep.trace = true`."""
    if not flat:
        return entry
    methods = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in entry.get("methods", {}).items()
    }
    for key, value in flat.items():
        name, _, field = key.removeprefix(KEY + ".").partition(".")
        if name in Request.model_fields and not field:
            entry[name] = _truth(value, Request.model_fields[name].annotation)
        elif field and "." not in field and methods.setdefault(name, {}) is not None:
            methods[name][field] = _truth(value, _annotation(name, field))
        else:
            raise ValueError(f"midstep: the key {shown(key)} is not allowed; write it as midstep.<method>.<parameter>")
    return {**entry, "methods": methods}
