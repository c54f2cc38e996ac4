"""The half of a Triton backend that knows the device: one CPU, one stream."""

from collections.abc import Callable
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

# torch imports triton, which imports this module: so torch is imported in the functions.


class CPUDriver(DriverBase):  # type: ignore[misc]
    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cpu", "x86", 0)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_device_interface(self) -> object:
        import torch

        return torch.cpu

    def get_active_torch_device(self) -> object:
        import torch

        return torch.device("cpu")

    def map_python_to_cpp_type(self, name: str) -> str:
        return "int"

    def get_benchmarker(self) -> Callable[..., Any]:
        from triton.testing import do_bench

        benchmark: Callable[..., Any] = do_bench
        return benchmark

    def get_empty_cache_for_benchmark(self) -> object:
        import torch

        return torch.empty(1)

    def clear_cache(self, cache: object) -> None:
        pass

    def assemble_tensormap_to_arg(self, *args: object, **kwargs: object) -> None:
        pass

    def launcher_cls(self) -> None:
        pass
