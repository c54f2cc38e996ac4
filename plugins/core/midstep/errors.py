"""Turns pydantic's findings into one line that names the value, what is allowed, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

SHOWN = 80  # characters of a bad value that are repeated to its sender


def explain(error: ValidationError, where: Sequence[str] = ()) -> str:
    """Return one line for the first findings of `error`; `where` is prepended to the place of each."""
    lines = []
    for finding in error.errors(include_url=False)[:3]:
        place = ".".join([*where, *(str(part) for part in finding["loc"])])
        lines.append(f"{place or 'the value'} = {shown(finding['input'])}: {finding['msg'].lower()}")
    return "; ".join(lines)


def shown(value: Any) -> str:
    """Return `value` as a short text."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def fields(model: type[BaseModel]) -> str:
    """Return the parameters of `model` in one line: name, type, bounds, default."""
    return ", ".join(describe(name, field) for name, field in model.model_fields.items()) or "none"


def describe(name: str, field: FieldInfo) -> str:
    """Return one parameter in a few words, for example `p (float, >= 0, <= 1, default 0.05)`."""
    bounds = [
        f"{sign} {getattr(rule, attribute)}"
        for rule in field.metadata
        for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if getattr(rule, attribute, None) is not None
    ]
    default = "required" if field.is_required() else f"default {field.default!r}"
    return f"{name} ({', '.join([_kind(field.annotation), *bounds, default])})"


def _kind(annotation: Any) -> str:
    """Return a type as a person says it: `int or None`, `'a' or 'b'`, `list of str`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "None"
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " or ".join(map(_kind, parts))
    if origin is Annotated:
        return _kind(parts[0])
    if origin is list:
        return f"list of {_kind(parts[0])}"
    return getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")
