"""Finds the one method that is named with its parameters, and checks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from ..errors import explain, fields
from ..methods import Method, Params
from ..plugins import catalogue

M = TypeVar("M", bound=Method)
P = TypeVar("P", bound=Params)


def named(asked: Mapping[str, Any], kind: Callable[..., M], what: str) -> tuple[type[M], Params]:
    """Return the one method that is named, and its checked parameters.

    Raises:
        ValueError: none or several are named, it is of another kind, or a parameter is not allowed.
    """
    if len(asked) != 1:
        raise ValueError(
            f"{len(asked)} names for a {what}: {', '.join(asked) or 'none'}; name exactly one, as in name={{}}"
        )
    ((name, values),) = asked.items()
    method = catalogue().find(name)
    if not issubclass(method, cast(type, kind)):
        raise ValueError(f"{name} is no {what}; `midstep methods` lists those that are installed")
    return cast(type[M], method), checked(method.Params, values, name)


def checked(params: type[P], values: Mapping[str, Any] | None, name: str) -> P:
    """Return parameters of a kind.

    Raises:
        ValueError: one is unknown, or not allowed.
    """
    try:
        return params.model_validate(dict(values or {}))
    except ValidationError as error:
        raise ValueError(f"{explain(error, [name])}; parameters of {name}: {fields(params)}") from error
    except TypeError as error:
        raise ValueError(f"{name} = {values!r}: {error}; parameters of {name}: {fields(params)}") from error
