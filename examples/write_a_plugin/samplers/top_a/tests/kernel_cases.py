"""Where the kernel tests run, the rows they are given, and memory that is poisoned first."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

INF = float("inf")
SIZES = ((3, 1), (3, 63), (2, 4099), (1, 32001))
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "peaked": lambda x: x.index_fill(1, torch.tensor(x.shape[1] // 2), 40.0),
    "masked": lambda x: x.masked_fill((x < 3) & (torch.arange(x.shape[1]) > 0), -INF),
    "all_equal": lambda x: torch.zeros_like(x),
    "ties": lambda x: x.round(),
}

on_devices = pytest.mark.parametrize("device", ["cuda" if torch.cuda.is_available() else "cpu"])


def rows_of(
    kind: str, rows: int, vocabulary: int, device: str, dtype: torch.dtype = torch.float32, pad: int = 0
) -> Tensor:
    """Make logits, [rows, vocabulary]; `pad` columns between two rows would win if they were read."""
    random = torch.Generator().manual_seed(rows * 1000003 + vocabulary)
    wide = torch.full((rows, vocabulary + pad), 1e9, dtype=dtype)
    wide[:, :vocabulary] = KINDS[kind](torch.randn(rows, vocabulary, generator=random) * 3).to(dtype)
    return wide.to(device)[:, :vocabulary]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what midstep allocates with NaN or True, so that an unwritten result cannot pass."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_poisoned(*args: Any, **kwargs: Any) -> Tensor:
            new = allocate(*args, **kwargs)
            if not str(sys._getframe(1).f_globals.get("__name__")).startswith("midstep"):
                return new
            return new.fill_(float("nan") if new.is_floating_point() else True)

        return allocate_poisoned

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
