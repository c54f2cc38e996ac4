"""Keeps a LoRA adapter loaded as long as a companion wears it: SGLang unloads one once it has no user left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

HELD = "_midstep_worn"  # the attribute of a ReqState: the task that returns the ids of its companions' adapters


def hold(manager: Any, state: Any, names: Iterable[str]) -> None:
    """Make a request a user of its companions' adapters."""
    wanted = list(names)
    if wanted:
        setattr(state, HELD, _start(manager, manager.lora_registry.acquire(wanted)))


def released(original: Any, manager: Any, state: Any) -> Any:
    """AROUND TokenizerManager._release_lora_once: the request has ended, and its companions with it."""
    held = state.__dict__.pop(HELD, None)
    if held is not None:
        _start(manager, _release(manager.lora_registry, held))
    return original(manager, state)


async def _release(registry: Any, held: asyncio.Task[list[str]]) -> None:
    try:
        ids = await held
    except ValueError:  # it was unloaded before this request had begun, and the scheduler has refused it
        return
    await registry.release(ids)


def _start(manager: Any, what: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.get_running_loop().create_task(what)
    manager._lora_release_tasks.add(task)  # as SGLang keeps its own
    task.add_done_callback(manager._lora_release_tasks.discard)
    return task
