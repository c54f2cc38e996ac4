"""Nothing that runs in an engine's step makes the host wait for the device. What would, a CPU shows too."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import VOCABULARY, admission, installed, rows
from toy_methods import PROCESSORS, SAMPLERS, STOPS

import midstep
from midstep.testing.examples import Letters, usual

READS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "unique2", "repeat_interleave"}


class Waits(TorchDispatchMode):
    """Collects the operations that wait on a GPU: reading a number, and copying the host's into a single one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operation, and go on."""
        name = function.overloadpacket.__name__
        # float64 is the host's own table, which goes to the device in one copy.
        single = name == "copy_" and args[0].dim() == 0 and args[0].dtype != torch.float64
        mask = name.startswith("index") and any(t is not None and t.dtype == torch.bool for t in _indices(args))
        if name in READS or single or mask:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


def _indices(args: Any) -> Any:
    return args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    with installed(logits_processors=PROCESSORS, samplers=SAMPLERS, reward_hooks=STOPS):
        yield


SAMPLED = midstep.Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.2)
ASKED: dict[str, dict[str, Any]] = {
    method.name: {}
    for method in (*PROCESSORS, *SAMPLERS, *STOPS)
    if not any(field.is_required() for field in method.Params.model_fields.values())
}


def test_the_probe_finds_what_waits() -> None:
    numbers = torch.zeros(3)
    with Waits() as waits:
        numbers[1] = 4
        numbers[numbers > 2].sum().item()
    assert waits.found == ["aten.copy_.default", "aten.index.Tensor", "aten._local_scalar_dense.default"]


@pytest.mark.parametrize("name", ASKED)
def test_no_call_waits(name: str) -> None:
    """Neither the first one of a request, which makes room for it, nor the second."""
    pipeline = midstep.Pipeline("cpu", max_length=64)
    requests = [admission(key, SAMPLED, **{name: ASKED[name]}) for key in "abc"]
    with Waits() as waits:
        for position in range(2):
            pipeline.run(rows(3), requests, [0, 1, 2], torch.full((3,), position))
    assert waits.found == []


@pytest.mark.parametrize("name", ["m3id", "proxy_tuning", "dexperts", "contrastive", "nudging"])
def test_no_call_with_companions_waits(name: str) -> None:
    """Here the definitions run; what their kernels do around a launch is to make room for results."""
    asked = midstep.parse(midstep.request(**{name: usual(midstep.catalogue().find(name))}))
    assert asked is not None
    model = midstep.Model(VOCABULARY, tokenizer=Letters(), ends=(2,))
    found = midstep.admit(asked, (3, 4, 5), SAMPLED, model, seed=1)
    assert found is not None
    mains = [found.stamped(key) for key in "abc"]
    entries = [*mains, *(shadow for main in mains for shadow, _ in midstep.shadows(main))]
    assert len(entries) > len(mains)
    pipeline = midstep.Pipeline("cpu", max_length=64)
    with Waits() as waits:
        for position in range(2):
            at = torch.full((len(entries),), position)
            pipeline.run(rows(len(entries)), entries, range(len(entries)), at)
    assert waits.found == []
