"""Where midstep holds on to SGLang: one table, probed before it is used, and verified after.

SGLang only logs what goes wrong with a hook. A name that is missing here must neither stop a server nor let a request
run unsteered: its absence becomes the reason with which requests that name a method are refused.
"""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

import midstep
from midstep import configuration

from . import refusals

logger = logging.getLogger("midstep")

TESTED = ("0.5.23",)
APPLICATION = "SGLANG_HTTP_SERVER_APP_PATH"

MANAGERS = "sglang.srt.managers"
TOKENIZER = f"{MANAGERS}.tokenizer_manager.TokenizerManager"
SCHEDULER = f"{MANAGERS}.scheduler.Scheduler"
BATCH = "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo"
OPENAI = "sglang.srt.entrypoints.openai"


@dataclass(frozen=True)
class Seam:
    """One place: the dotted path, the hook, its type, and the parameters that the place must have, in order."""

    target: str
    hook: Callable[..., Any]
    kind: HookType
    parameters: tuple[str, ...]

    def missing(self) -> str | None:
        """Say what this SGLang lacks, or None."""
        try:
            place = pkgutil.resolve_name(self.target)
        except (ImportError, AttributeError, ValueError) as error:
            return f"{self.target} ({error})"
        have = tuple(inspect.signature(place).parameters)
        return None if have[: len(self.parameters)] == self.parameters else f"{self.target}{have}"

    def taken(self) -> bool:
        """Say whether the hook is in place."""
        return any(self.hook == cell for cell in _cells(pkgutil.resolve_name(self.target)))


def _cells(function: Any) -> Iterator[Any]:
    """Yield what the wrappers around `function` close over."""
    while function is not None:
        yield from (cell.cell_contents for cell in getattr(function, "__closure__", None) or ())
        function = getattr(function, "__wrapped__", None)


def install() -> None:
    """Register every hook, and the sampler; note what is missing."""
    settings, problems = _settings()
    try:
        seams, gate = _table(settings)
        problems += [text for seam in seams if (text := seam.missing())]
    except Exception as error:  # a module of SGLang's that moved
        logger.error("midstep is off: this SGLang lacks something it needs: %s: %s", type(error).__name__, error)
        return
    for seam in seams:
        if seam.missing() is None:
            HookRegistry.register(seam.target, seam.hook, seam.kind)
    gate.problem = f"this SGLang ({_version()}) lacks {problems[0]}; tested: {_tested()}" if problems else None
    os.environ.setdefault(APPLICATION, "midstep_sglang.workers:app")


def _settings() -> tuple[midstep.Configuration, list[str]]:
    try:
        return configuration.current(), []
    except ValueError as error:
        return midstep.Configuration(), [f"a readable configuration: {error}"]


def _table(settings: midstep.Configuration) -> tuple[Sequence[Seam], Any]:
    from . import answers, channel, gate, intake, sampler, steered

    sampler.register()
    door = gate.Gate(settings, None)
    before, after, around = HookType.BEFORE, HookType.AFTER, HookType.AROUND
    table = [
        Seam(f"{TOKENIZER}._validate_one_request", door.refuse_code, before, ("self", "obj")),
        Seam(f"{TOKENIZER}._create_tokenized_object", door.admit, around, ("self", "obj")),
        Seam(f"{TOKENIZER}._send_one_request", gate.stamp, before, ("self", "tokenized_obj")),
        Seam(f"{TOKENIZER}._send_batch_request", gate.stamp_all, before, ("self", "tokenized_objs")),
        Seam(f"{TOKENIZER}.update_request_meta_info", answers.unwrap, around, ("self", "meta_info", "state")),
        Seam(f"{TOKENIZER}._handle_abort_req", answers.aborted, around, ("self", "recv_obj")),
        Seam(f"{TOKENIZER}.generate_request", answers.remembered, around, ("self", "obj")),
        Seam(f"{SCHEDULER}._add_request_to_queue", intake.take, before, ("self", "req")),
        Seam(f"{SCHEDULER}.process_batch_result", channel.decide, before, ("self", "batch", "result")),
        Seam(f"{SCHEDULER}.get_output_streamer_class", channel.streamer, after, ("self",)),
        Seam(f"{MANAGERS}.schedule_batch.Req.update_finish_state", channel.finish, after, ("self",)),
        Seam(f"{BATCH}.adjusted_from_schedule_batch", steered.begun, after, ("self", "batch")),
        Seam(f"{BATCH}.adjusted_filter_batch", steered.filtered, after, ("self", "keep_indices")),
        Seam(f"{BATCH}.adjusted_merge_batch", steered.merged, after, ("self", "other")),
        Seam(f"{BATCH}.copy_for_forward", steered.copied, after, ("self",)),
        Seam("sglang.srt.sampling.custom_logit_processor._cache_from_str", intake.unpickle, HookType.REPLACE, ()),
    ]
    for module, name, build in (("chat", "Chat", answers.chat), ("completions", "Completion", answers.completion)):
        place, kind = f"{OPENAI}.serving_{module}.OpenAIServing{name}", name.lower()
        table.append(Seam(f"{place}._build_{kind}_response", build, after, ("self", "request", "ret")))
        table.append(Seam(f"{place}._generate_{kind}_stream", answers.streamed, around, ("self", "adapted_request")))
    announcement = Announcement(door, table)
    table.append(Seam(f"{TOKENIZER}.__init__", announcement.make, after, ("self", "server_args")))
    return table, door


class Announcement:
    """Says once, when a server's tokenizer process is ready, what was switched on and how to undo it."""

    def __init__(self, gate: Any, table: Sequence[Seam]) -> None:
        self.gate = gate
        self.table = tuple(table)

    def make(self, _: None, manager: Any, arguments: Any, *args: Any, **kwargs: Any) -> None:
        """AFTER TokenizerManager.__init__: verify the hooks, and log one line."""
        lost = [seam.target for seam in self.table if not seam.missing() and not seam.taken()]
        if lost and self.gate.problem is None:
            self.gate.problem = f"the hook on {lost[0]} did not take; the log says which plugin is in its way"
        problem = self.gate.problem or refusals.by_server(arguments)
        if problem is not None:
            logger.error("midstep serves no method here: %s. Requests that name one get HTTP 400.", problem)
        else:
            names = ", ".join(sorted(n for n in midstep.catalogue().methods if ":" not in n)) or "none"
            logger.warning(
                "midstep is on, as midstep-sglang is installed: methods %s; SGLang %s, tested %s. MIDSTEP=off undoes it.",
                names,
                _version(),
                _tested(),
            )


def _version() -> str:
    return version("sglang")


def _tested() -> str:
    return ", ".join(TESTED)
