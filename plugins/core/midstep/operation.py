"""One operation, two implementations: a torch reference, and a Triton kernel of the same signature."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def kernels_off() -> str | None:
    """Return why no kernel is used, or None where CUDA tensors go to the kernels."""
    if os.environ.get("MIDSTEP_KERNELS") == "off":
        return "MIDSTEP_KERNELS=off"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None


def uses_kernels(tensor: Tensor) -> bool:
    """Say whether what is asked of this tensor is a kernel's work."""
    return tensor.is_cuda and kernels_off() is None


def named(path: str) -> Any:
    """Return what a "module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def operation(reference: Callable[P, T], kernel: str) -> Callable[P, T]:
    """Return a function that sends CUDA tensors to the kernel and all others to the reference.

    Args:
        reference: the definition, and the way on a CPU.
        kernel: the "module:name" of the kernel; imported when it is first needed.
    """

    @functools.cache
    def load() -> Callable[P, T]:
        return named(kernel)  # type: ignore[no-any-return]

    @functools.wraps(reference)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        logits = args[0]
        if isinstance(logits, Tensor) and uses_kernels(logits):
            return load()(*args, **kwargs)
        return reference(*args, **kwargs)

    return run
