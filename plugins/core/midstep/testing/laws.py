"""The laws of the methods that run at each token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..admission import Use
from ..beside import Reward
from ..methods import FORCE, LogitsProcessor, Method, Sampler, StopController
from ..rows import Rows
from .examples import example, parameters, pick, positions, run, usual


def declares_itself(method: type[Method]) -> None:
    """Law: a method can be listed, documented and asked for without being run."""
    assert method.name.isidentifier(), f"{method.__name__}.name = {method.name!r} is not an identifier"
    assert method.__doc__, f"{method.__name__} has no docstring"
    settings = method.Params.model_config
    assert (settings.get("frozen"), settings.get("extra")) == (True, "forbid"), (
        f"{method.__name__}.Params must be frozen and refuse unknown fields: derive it from midstep.Params"
    )
    for name, field in method.Params.model_fields.items():
        assert field.description, f"{method.__name__}.Params.{name} has no description"
    if issubclass(method, Reward):
        method(method.Params.model_validate(usual(method)))
    else:
        method()


@dataclass(frozen=True)
class Trial:
    """One call of a method, and everything that it gave."""

    method: type[Method]
    instance: Any
    logits: Tensor
    rows: Rows
    used: Use
    found: Mapping[str, Tensor]
    about: str


def trials(method: type[Method]) -> Iterator[Trial]:
    """Call the method with each of its parameters at each position."""
    for params in parameters(method):
        for position in positions():
            logits, rows, used = example(method, params, position)
            instance = method()
            found = run(instance, logits.clone(), pick(rows, torch.arange(len(logits))))
            yield Trial(method, instance, logits, rows, used, found, f"{method.name}({params}) at position {position}")


def has_its_shape(trial: Trial) -> None:
    """Law: everything has the shape and the dtype that its kind promises."""
    rows, about = trial.rows, trial.about
    count, vocabulary = trial.logits.shape
    expected = {
        "apply": ((count, vocabulary), torch.float32),
        "keep": ((count, vocabulary), torch.bool),
        "sample": ((count,), torch.int64),
        "action": ((count,), torch.int64),
        "value": ((count,), torch.float32),
        "threshold": ((count,), torch.float32),
        "instead_of": ((count,), torch.int64),
        **{f"state.{name}": (tuple(value.shape), value.dtype) for name, value in rows.state.items()},
    }
    for name, value in trial.found.items():
        shape, dtype = expected[name]
        assert tuple(value.shape) == shape, f"{about}: {name} has shape {tuple(value.shape)}; it must be {shape}"
        assert value.dtype == dtype, f"{about}: {name} is {value.dtype}; it must be {dtype}"


def keeps_the_mask(trial: Trial) -> None:
    """Law: a token at -inf stays out, and every row keeps a token."""
    method, found, about = trial.method, trial.found, trial.about
    masked = trial.logits.isneginf()
    if issubclass(method, LogitsProcessor):
        out = found["apply"]
        assert not out.isnan().any(), f"{about}: NaN"
        assert not out.isposinf().any(), f"{about}: +inf"
        assert out[masked].isneginf().all(), f"{about}: a masked token came back"
        assert out.isfinite().any(-1).all(), f"{about}: a row lost its last token"
    elif issubclass(method, Sampler) and method.keeps():
        assert (found["keep"] & ~masked).any(-1).all(), f"{about}: a row lost its last token"
    elif issubclass(method, Sampler):
        assert not masked.gather(1, found["sample"][:, None]).any(), f"{about}: a masked token was chosen"
    elif issubclass(method, StopController):
        action = found["action"]
        assert ((action >= 0) & (action < FORCE + len(trial.used.sequences))).all(), (
            f"{about}: an action that does not exist"
        )


def ignores_its_neighbours(trial: Trial) -> None:
    """Law: a row's result is bitwise the same alone, and in any order."""
    logits, found, about = trial.logits, trial.found, trial.about
    for index in [torch.tensor([r]) for r in range(len(logits))] + [torch.arange(len(logits)).flip(0)]:
        again = run(trial.instance, logits[index].clone(), pick(trial.rows, index))
        for name, value in again.items():
            same = torch.equal(value.nan_to_num(-1e30), found[name][index].nan_to_num(-1e30))
            assert same, f"{about}: {name} of row {index.tolist()} depends on its neighbours"


def draws_no_noise_of_its_own(trial: Trial) -> None:
    """Law: chance comes from rows.seed and rows.position only, and the shared generators are left alone."""
    found, about = trial.found, trial.about
    before = torch.random.get_rng_state()
    again = run(trial.instance, trial.logits.clone(), pick(trial.rows, torch.arange(len(trial.logits))))
    assert torch.equal(before, torch.random.get_rng_state()), f"{about}: it used torch's shared generator"
    for name, value in again.items():
        assert torch.equal(value.nan_to_num(-1e30), found[name].nan_to_num(-1e30)), (
            f"{about}: {name} differs from run to run"
        )


def serves_an_empty_call(trial: Trial) -> None:
    """Law: a call of no rows gives results of no rows."""
    none = torch.zeros(0, dtype=torch.int64)
    for name, value in run(trial.instance, trial.logits[none], pick(trial.rows, none)).items():
        assert len(value) == 0, f"{trial.about}: {name} has {len(value)} rows in a call of none"


def treats_masked_as_absent(trial: Trial) -> None:
    """Law: a token at -inf counts as absent from the vocabulary; not tried where a method knows tokens by their ids."""
    method, logits, rows, about = trial.method, trial.logits, trial.rows, trial.about
    if method.history or any(trial.used.ids.values()) or trial.used.sequences:
        return
    there = torch.arange(logits.shape[1]) % 3 != 0
    everyone = torch.arange(len(logits))
    masked, absent = pick(rows, everyone), pick(rows, everyone)
    masked.companions = {k: v.masked_fill(~there, -torch.inf) for k, v in masked.companions.items()}
    absent.companions = {k: v[:, there] for k, v in absent.companions.items()}
    one = run(method(), logits.masked_fill(~there, -torch.inf), masked)
    two = run(method(), logits[:, there].clone(), absent)
    if "sample" in one:  # noise belongs to a token's id, which moved: only the mask can be compared
        assert there[one["sample"]].all(), f"{about}: a masked token was chosen"
        return
    for name, value in one.items():
        other = two[name]
        if name in ("apply", "keep"):
            value = value[:, there]
        same = torch.allclose(value.double(), other.double(), rtol=1e-5, atol=1e-5, equal_nan=True)
        assert same, f"{about}: {name} counts masked tokens"


OF_TOKEN_METHODS: Mapping[str, Callable[[Trial], None]] = MappingProxyType(
    {
        "shapes and dtypes": has_its_shape,
        "masked tokens stay masked, and every row keeps a token": keeps_the_mask,
        "a row's result is bitwise the same alone and in any batch": ignores_its_neighbours,
        "chance comes from seed and position only": draws_no_noise_of_its_own,
        "an empty call works": serves_an_empty_call,
        "masked tokens count as absent": treats_masked_as_absent,
    }
)
