"""What the kernel tests share: where they run, the rows they are given, and memory that is poisoned first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from interpreter import INTERPRETED
from torch import Tensor

INF = float("inf")

# Rows and vocabulary: one token, less than a tile, one tile and a bit, an odd size, a large one.
SIZES = ((3, 1), (3, 7), (3, 63), (3, 1000), (2, 4099), (2, 32001), (1, 151936))

on_devices = pytest.mark.parametrize(
    "device",
    [
        pytest.param(
            "cpu",
            id="interpreter",
            marks=[
                pytest.mark.kernel,
                pytest.mark.skipif(
                    not INTERPRETED, reason="Triton's interpreter is off; TRITON_INTERPRET=1 turns it on"
                ),
            ],
        ),
        pytest.param(
            "cuda",
            id="gpu",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
                pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1: the kernels are not compiled"),
            ],
        ),
    ],
)


def _masked(x: Tensor, random: torch.Generator) -> Tensor:
    masked = x.masked_fill(torch.rand(x.shape, generator=random) < 0.9, -INF)
    masked[:, x.shape[1] // 2] = 1.0
    return masked


def _one_hot(x: Tensor, random: torch.Generator) -> Tensor:
    rows, vocabulary = x.shape
    hot = torch.randint(vocabulary, (rows, 1), generator=random)
    return torch.full_like(x, -INF).scatter_(1, hot, 0.0)


def _peaked(x: Tensor, random: torch.Generator) -> Tensor:
    rows, vocabulary = x.shape
    return x.scatter_(1, torch.randint(vocabulary, (rows, 1), generator=random), 40.0)


def _last(x: Tensor, random: torch.Generator) -> Tensor:
    x[:, -1] = 30.0
    return x


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "plain": lambda x, _: x,
    "shifted": lambda x, _: x + 100.0,
    "peaked": _peaked,
    "last": _last,
    "masked": _masked,
    "one_hot": _one_hot,
    "all_equal": lambda x, _: torch.zeros_like(x),
    "ties": lambda x, _: x.round(),
}


def rows_of(
    kind: str, rows: int, vocabulary: int, device: str, dtype: torch.dtype = torch.float32, pad: int = 0
) -> Tensor:
    """Make logits, [rows, vocabulary]: the same ones every time.

    Args:
        kind: a name of KINDS.
        pad: columns between two rows, filled with what would win if it were read.
    """
    random = torch.Generator().manual_seed(rows * 1000003 + vocabulary)
    logits = KINDS[kind](torch.randn(rows, vocabulary, generator=random) * 3, random).to(dtype)
    wide = torch.full((rows, vocabulary + pad), 1e9, dtype=dtype)
    wide[:, :vocabulary] = logits
    return wide.to(device)[:, :vocabulary]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what midstep allocates with NaN, True or a wild number, so that an unwritten result cannot pass."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_poisoned(*args: Any, **kwargs: Any) -> Tensor:
            new = allocate(*args, **kwargs)
            if not str(sys._getframe(1).f_globals.get("__name__")).startswith("midstep"):
                return new
            if new.is_floating_point():
                return new.fill_(float("nan"))
            return new.fill_(True if new.dtype == torch.bool else 0x5A5A5A5A)

        return allocate_poisoned

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
