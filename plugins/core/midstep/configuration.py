"""The server's own settings: `midstep.toml`, named by MIDSTEP_CONFIG or by the engine's flag."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import explain


class Limits(BaseModel):
    """What one request may ask for at most, and how long a method may take."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    methods: int = Field(8, ge=0, le=32, description="Methods in one request.")
    companions: int = Field(4, ge=0, description="Companions of one request.")
    n: int = Field(64, ge=1, description="Samples of one request that uses a method.")
    width: int = Field(64, ge=1, description="Continuations that a search keeps in flight.")
    reward_tokens: int = Field(1_000_000, ge=0, description="Tokens that a request may spend on rewards.")
    history: int | None = Field(None, ge=1, description="Tokens, prompt and answer, that a method may look back over.")
    json_bytes: int = Field(65_536, ge=2, description="Size of a request's midstep entry, in bytes.")
    call_seconds: float = Field(1.0, gt=0, description="A call of a method that takes longer is reported as slow.")
    slow_calls: int = Field(3, ge=1, description="After so many slow calls a method is no longer called.")


class Preset(BaseModel):
    """Methods with their parameters, under one name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: dict[str, dict[str, Any] | None] = {}
    order: list[str] = []
    on_error: Literal["stop", "continue"] | None = None
    trace: bool | None = None


class NamedReward(BaseModel):
    """An installed reward under a name that requests may use; its parameters are the server's, never a request's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use: str = Field(description="The installed reward.")
    params: dict[str, Any] = Field({}, description="Its parameters.")
    patience: dict[str, Any] = Field({}, description="How it is asked: the fields of `midstep.searching.Patience`.")


class Configuration(BaseModel):
    """The whole file. `defaults` are methods for every request, without its client knowing.

    `rewards` are what a request may name as its reward, beside those installed ones that need no parameters. Where
    `allow` is set, requests may name these methods only, and the other defaults are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: Preset = Preset()
    presets: dict[str, Preset] = {}
    rewards: dict[str, NamedReward] = {}
    limits: Limits = Limits()
    allow: frozenset[str] | None = None


def read(path: str | Path) -> Configuration:
    """Read and check one configuration file.

    Raises:
        ValueError: the file is missing, is not TOML, or sets something unknown; the text says where.
    """
    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        for name, section in {"defaults": settings.get("defaults"), **settings.get("presets", {})}.items():
            if isinstance(section, Mapping):
                settings = _place(settings, name, section)
        if isinstance(settings.get("rewards"), Mapping):
            settings = {**settings, "rewards": {name: _apart(own) for name, own in settings["rewards"].items()}}
        return Configuration.model_validate(settings)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; name an existing file in MIDSTEP_CONFIG, or unset it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from error


def _place(settings: dict[str, Any], name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Move the methods of a section, written as `[defaults.min_p]`, under its `methods`."""
    known = Preset.model_fields.keys()
    placed = {key: value for key, value in section.items() if key in known}
    placed["methods"] = {**section.get("methods", {}), **{k: v for k, v in section.items() if k not in known}}
    if name == "defaults":
        return {**settings, "defaults": placed}
    return {**settings, "presets": {**settings["presets"], name: placed}}


def _apart(section: Any) -> Any:
    """Move the parameters of a reward, written beside its `use`, under its `params`."""
    if not isinstance(section, Mapping):
        return section
    known = NamedReward.model_fields.keys()
    placed = {key: value for key, value in section.items() if key in known}
    placed["params"] = {**section.get("params", {}), **{k: v for k, v in section.items() if k not in known}}
    return placed


@cache
def current(path: str | None = None) -> Configuration:
    """Return the configuration in force: `path`, else MIDSTEP_CONFIG, else nothing but the limits.

    Raises:
        ValueError: as `read`; or a default, preset or reward names something that is not installed or not allowed.
    """
    from .requests import check_allowed, check_preset
    from .searching.rewards import check_reward

    path = path or os.environ.get("MIDSTEP_CONFIG")
    configuration = read(path) if path else Configuration()
    try:
        check_allowed(configuration.allow or ())
    except ValueError as error:
        raise ValueError(f"{path}, allow: {error}") from error
    for name, preset in {"defaults": configuration.defaults, **configuration.presets}.items():
        try:
            check_preset(preset)
        except ValueError as error:
            raise ValueError(f"{path}, {name}: {error}") from error
    for name, reward in configuration.rewards.items():
        try:
            check_reward(reward)
        except ValueError as error:
            raise ValueError(f"{path}, rewards.{name}: {error}") from error
    return configuration
