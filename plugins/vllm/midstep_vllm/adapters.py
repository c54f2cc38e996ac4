"""Which LoRA adapters an engine has, by name: a companion names one, and vLLM wants to be told where it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

ADAPTERS = "adapters"  # in what a request carries to the scheduler: its companions' adapters by name, as plain data


class Adapters:
    """The LoRARequests that one API process knows: those added to its engine, and those that requests wore.

    An adapter that was removed is not among them; a request that has begun keeps the one that it wears.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Any] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names."""
        return tuple(self._by_name)

    def learn(self, request: Any) -> None:
        """Remember a LoRARequest; None is none."""
        if request is not None:
            self._by_name[request.lora_name] = request

    def forget(self, *, name: str | None = None, number: int | None = None) -> None:
        """Forget the one of this name, or of this id."""
        gone = [key for key, one in self._by_name.items() if key == name or one.lora_int_id == number]
        for key in gone:
            del self._by_name[key]

    def plain(self, names: set[str]) -> dict[str, Any]:
        """Return these as plain data, which crosses processes; `read` is the way back."""
        return {name: msgspec.to_builtins(self._by_name[name]) for name in sorted(names)}


def read(data: Any) -> Any:
    """Read one LoRARequest of `Adapters.plain`."""
    from vllm.lora.request import LoRARequest

    return msgspec.convert(data, LoRARequest)


def of(processor: Any) -> Adapters:
    """Return what is known beside an InputProcessor."""
    found: Adapters | None = processor.__dict__.get("midstep_adapters")
    if found is None:
        found = processor.midstep_adapters = Adapters()
    return found


def add_lora(original: Callable[..., Any], self: Any, lora_request: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around LLMEngine.add_lora."""
    added = original(self, lora_request, *args, **kwargs)
    of(self.input_processor).learn(lora_request)
    return added


async def add_lora_async(original: Callable[..., Any], self: Any, lora_request: Any, *args: Any, **kw: Any) -> Any:
    """Stand around AsyncLLM.add_lora."""
    added = await original(self, lora_request, *args, **kw)
    of(self.input_processor).learn(lora_request)
    return added


def remove_lora(original: Callable[..., Any], self: Any, lora_id: int, *args: Any, **kwargs: Any) -> Any:
    """Stand around LLMEngine.remove_lora and AsyncLLM.remove_lora."""
    of(self.input_processor).forget(number=lora_id)
    return original(self, lora_id, *args, **kwargs)


async def unload(original: Callable[..., Any], self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around a server's /v1/unload_lora_adapter, which does not tell the engine."""
    answer = await original(self, request, *args, **kwargs)
    if request.lora_name not in self.lora_requests:
        of(self.engine_client.input_processor).forget(name=request.lora_name)
    return answer
