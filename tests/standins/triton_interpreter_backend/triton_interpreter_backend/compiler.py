"""The half of a Triton backend that compiles. Under TRITON_INTERPRET=1 only `supports_target` is ever called."""

from typing import Any, NoReturn

from triton.backends.compiler import BaseBackend, GPUTarget


class CPUBackend(BaseBackend):  # type: ignore[misc]
    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Take the target that `driver.CPUDriver` names, and no other."""
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        return "cpu-interpret"

    def parse_options(self, options: dict[str, Any]) -> NoReturn:
        """Refuse to compile."""
        raise NotImplementedError("this backend compiles nothing: set TRITON_INTERPRET=1")

    def add_stages(self, stages: dict[str, Any], options: object, *rest: object) -> NoReturn:
        """Refuse to compile."""
        raise NotImplementedError("this backend compiles nothing: set TRITON_INTERPRET=1")

    def load_dialects(self, context: object) -> None:
        pass

    def get_module_map(self) -> dict[str, Any]:
        return {}

    def get_codegen_implementation(self, *options: object) -> dict[str, Any]:
        return {}

    def pack_metadata(self, metadata: object) -> None:
        return None
