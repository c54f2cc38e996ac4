"""The laws of the methods that run at each token."""

from __future__ import annotations

import torch
from torch import Tensor

from ..admission import Use
from ..methods import FORCE, LogitsProcessor, Method, Params, Sampler, StopController
from ..rows import Rows
from .examples import example, pick, positions, run


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
    method()


def check_token_method(method: type[Method], params: Params) -> None:
    """Check every law of logits processors, samplers and stops with one set of parameters."""
    for position in positions():
        logits, rows, used = example(method, params, position)
        about = f"{method.name}({params}) at position {position}"
        instance = method()
        found = run(instance, logits.clone(), pick(rows, torch.arange(len(logits))))
        _has_its_shape(found, logits, rows, about)
        _keeps_the_mask(method, found, logits, used, about)
        _ignores_its_neighbours(instance, found, logits, rows, about)
        _draws_no_noise_of_its_own(instance, found, logits, rows, about)
        _serves_an_empty_call(instance, logits, rows, about)
        if not method.history and not any(used.ids.values()) and not used.sequences:
            _treats_masked_as_absent(method, logits, rows, about)


def _has_its_shape(found: dict[str, Tensor], logits: Tensor, rows: Rows, about: str) -> None:
    count, vocabulary = logits.shape
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
    for name, value in found.items():
        shape, dtype = expected[name]
        assert tuple(value.shape) == shape, f"{about}: {name} has shape {tuple(value.shape)}; it must be {shape}"
        assert value.dtype == dtype, f"{about}: {name} is {value.dtype}; it must be {dtype}"


def _keeps_the_mask(method: type[Method], found: dict[str, Tensor], logits: Tensor, used: Use, about: str) -> None:
    """Law: a token at -inf stays out, and every row keeps a token."""
    masked = logits.isneginf()
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
        assert ((action >= 0) & (action < FORCE + len(used.sequences))).all(), f"{about}: an action that does not exist"


def _ignores_its_neighbours(method: Method, found: dict[str, Tensor], logits: Tensor, rows: Rows, about: str) -> None:
    """Law: a row's result is bitwise the same alone, and in any order."""
    for index in [torch.tensor([r]) for r in range(len(logits))] + [torch.arange(len(logits)).flip(0)]:
        again = run(method, logits[index].clone(), pick(rows, index))
        for name, value in again.items():
            same = torch.equal(value.nan_to_num(-1e30), found[name][index].nan_to_num(-1e30))
            assert same, f"{about}: {name} of row {index.tolist()} depends on its neighbours"


def _draws_no_noise_of_its_own(
    method: Method, found: dict[str, Tensor], logits: Tensor, rows: Rows, about: str
) -> None:
    """Law: chance comes from rows.seed and rows.position only, and the shared generators are left alone."""
    before = torch.random.get_rng_state()
    again = run(method, logits.clone(), pick(rows, torch.arange(len(logits))))
    assert torch.equal(before, torch.random.get_rng_state()), f"{about}: it used torch's shared generator"
    for name, value in again.items():
        assert torch.equal(value.nan_to_num(-1e30), found[name].nan_to_num(-1e30)), (
            f"{about}: {name} differs from run to run"
        )


def _serves_an_empty_call(method: Method, logits: Tensor, rows: Rows, about: str) -> None:
    """Law: a call of no rows gives results of no rows."""
    none = torch.zeros(0, dtype=torch.int64)
    for name, value in run(method, logits[none], pick(rows, none)).items():
        assert len(value) == 0, f"{about}: {name} has {len(value)} rows in a call of none"


def _treats_masked_as_absent(method: type[Method], logits: Tensor, rows: Rows, about: str) -> None:
    """Law: a token at -inf counts as absent from the vocabulary."""
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
