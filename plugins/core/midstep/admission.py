"""Admits a request: the one place where it can be refused. What comes out is plain data that crosses processes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

from .companions import together, unknown_adapter
from .configuration import Configuration, Limits
from .methods import Companion, LogitsProcessor, Method, Model, Params, Prepared, StopController
from .plugins import catalogue
from .requests import Asked, validate
from .sampling import Sampling
from .watching.method import StepReward, Watch
from .watching.watched import Watched, watched

ORDER = (StopController, LogitsProcessor)  # then the samplers


@dataclass(frozen=True)
class Use:
    """One method in one request: its parameters as given, its columns as numbers, and what it prepared."""

    name: str
    params: Mapping[str, Any]
    columns: Mapping[str, float]
    ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sequences: tuple[tuple[int, ...], ...] = ()
    companions: Mapping[str, Companion] = field(default_factory=dict)


@dataclass(frozen=True)
class Admission:
    """One engine-side request that midstep draws, or whose steps it has judged, or both.

    Args:
        uses: its methods, in the order of the pipeline.
        sampling: what was moved out of the engine's own sampling parameters.
        prompt: its token ids.
        ends: the token ids that end it.
        key: names it while it lives; "" until the engine has one.
        seed: of the noise, 64 bits; None until drawn.
        sample: its index among the n samples of its request.
        max_tokens: it generates at most so many; None where the engine sets no limit of its own.
        watch: what the engine's core must know to have its steps judged, or None.
    """

    uses: tuple[Use, ...]
    sampling: Sampling
    prompt: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    on_error: Literal["stop", "continue"] = "stop"
    trace: bool = False
    key: str = ""
    seed: int | None = None
    sample: int = 0
    max_tokens: int | None = None
    watch: Watched | None = None

    @property
    def drawn(self) -> bool:
        """Say whether midstep draws its tokens; else they are the engine's own."""
        return bool(self.uses) or self.trace or self.watch is None

    def stamped(self, key: str, sample: int = 0, group: str | None = None) -> Admission:
        """Return this admission for one engine-side request: its key, its sample index, and its own seed.

        A seeded request draws with seed + sample, an unseeded one with 64 random bits.

        Args:
            group: names the user's request, which all of its samples share; None: there is one sample.
        """
        seed = secrets.randbits(64) if self.seed is None else self.seed + sample
        watch = None if self.watch is None else replace(self.watch, group=group or key, sample=sample)
        return replace(self, key=key, sample=sample, seed=_signed(seed), watch=watch)

    def wire(self) -> dict[str, Any]:
        """Return this admission without its prompt as JSON-able data; the engine carries the prompt."""
        return {**asdict(self), "prompt": ()}

    @classmethod
    def unwire(cls, data: Mapping[str, Any], prompt: Sequence[int] = ()) -> Admission:
        """Read what `wire` made."""
        uses = tuple(
            Use(
                u["name"],
                u["params"],
                u["columns"],
                {k: tuple(v) for k, v in u["ids"].items()},
                tuple(map(tuple, u["sequences"])),
                {k: Companion(tuple(c["prompt"]), c["wears"]) for k, c in u["companions"].items()},
            )
            for u in data["uses"]
        )
        watch = None if data.get("watch") is None else Watched(**data["watch"])
        known = {"uses": uses, "sampling": Sampling(**data["sampling"]), "prompt": tuple(prompt), "watch": watch}
        return cls(**{**data, **known, "ends": tuple(data["ends"])})


def whoever(method: type[Method], prepared: Prepared) -> str | None:
    """Say why an engine that does nothing but draw cannot serve a method: it has nobody judge a request's steps."""
    if issubclass(method, Watch):
        return "here nobody judges steps while they come; send it to vLLM or to SGLang"
    return None


def admit(
    asked: Asked,
    prompt: Sequence[int],
    sampling: Sampling,
    model: Model,
    *,
    seed: int | None = None,
    max_tokens: int | None = None,
    limits: Limits | None = None,
    serves: Callable[[type[Method], Prepared], str | None] = whoever,
    configuration: Configuration | None = None,
    n: int = 1,
) -> Admission | None:
    """Prepare every method of a request; None where only defaults were asked for and none can be served.

    Args:
        limits: the server's.
        serves: says why this engine cannot serve a method for this request, or None.
        configuration: the server's, with the rewards that it names.
        n: the samples of the user's request.

    Raises:
        ValueError: a method that the client named refuses the request, or this engine cannot serve it.
    """
    uses, watch = [], None
    for name in sorted(asked.methods, key=lambda name: _place(name, asked.order)):
        method, params = validate(name, asked.methods[name])
        try:
            prepared = method.prepare(params, prompt, model)
            reason = (
                unknown_adapter(prepared, model)
                or serves(method, prepared)
                or _too_far_back(method, prompt, max_tokens, model, limits)
            )
            if reason is not None:
                raise ValueError(reason)
            if isinstance(params, StepReward.Params):
                watch = watched(params, prompt, model, configuration or Configuration(), n)
                continue
        except Exception as error:  # a stranger's code: whatever it raises is the request's refusal
            if name in asked.by_default:
                continue
            text = str(error) if isinstance(error, ValueError) else f"prepare() failed: {type(error).__name__}: {error}"
            raise ValueError(f"midstep: {name}: {text}") from error
        uses.append(use(name, method, params, prepared))
    if not uses and not asked.trace and not asked.draw and watch is None:
        return None
    max_tokens = together(uses, asked.order, max_tokens, model, limits)
    return Admission(
        uses=tuple(uses),
        sampling=sampling,
        prompt=tuple(prompt),
        ends=model.ends,
        on_error=asked.on_error,
        trace=asked.trace,
        seed=seed,
        max_tokens=max_tokens,
        watch=watch,
    )


def _too_far_back(
    method: type[Method], prompt: Sequence[int], max_tokens: int | None, model: Model, limits: Limits | None
) -> str | None:
    """Say that a method may come to look back over more tokens than the server allows, or None."""
    most = None if limits is None else limits.history
    if most is None or not method.history:
        return None
    longest = None if max_tokens is None else len(prompt) + max_tokens
    if longest is None or (model.max_length is not None and longest > model.max_length):
        longest = model.max_length
    if longest is not None and longest <= most:
        return None
    length = "unlimited" if longest is None else f"{longest} tokens"
    own = f"a prompt of {len(prompt)} and max_tokens = {max_tokens}"
    way = "send a shorter prompt or a smaller max_tokens"
    return f"its history would be {length} ({own}); allowed on this server: {most} (limits.history); {way}"


def use(name: str, method: type[Method], params: Params, prepared: Prepared) -> Use:
    """Return what the pipeline needs of one method in one request."""
    columns = numbers(params)
    twice = columns.keys() & prepared.columns.keys()
    if twice:
        raise ValueError(f"{method.__name__}.prepare() returned a column {sorted(twice)[0]!r}, which is a parameter")
    return Use(
        name,
        params.model_dump(mode="json"),
        {**columns, **prepared.columns},
        {k: tuple(v) for k, v in prepared.ids.items()},
        tuple(tuple(prepared.sequences[k]) for k in sorted(prepared.sequences)),
        {k: replace(c, prompt=tuple(c.prompt)) for k, c in sorted(prepared.companions.items())},
    )


def numbers(params: Params) -> dict[str, float]:
    """Return the parameters that are columns: numbers, booleans as 0 and 1, choices as their index."""
    found: dict[str, float] = {}
    for name, info in type(params).model_fields.items():
        value = getattr(params, name)
        if get_origin(info.annotation) is Literal:
            found[name] = get_args(info.annotation).index(value)
        elif isinstance(value, bool | int | float):
            found[name] = value
    return found


def _place(name: str, order: tuple[str, ...]) -> tuple[int, int, str]:
    method = catalogue().find(name)
    kind = next((i for i, k in enumerate(ORDER) if issubclass(method, k)), len(ORDER))
    return kind, order.index(name) if name in order else len(order), name


def _signed(seed: int) -> int:
    """Return the 64 bits of `seed` as a two's complement number, which a tensor can hold."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >> 63 else seed
