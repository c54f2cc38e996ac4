"""Switches midstep on in one of SGLang's processes, and says so.

SGLang only logs what goes wrong with a hook. A place that is missing must neither stop a server nor let a request run
unsteered: its absence becomes the reason with which requests that name a method are refused.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

import midstep
from midstep import configuration

from . import models, refusals
from .seams import NEEDED, TOKENIZER, Seam, doors, engine_side, parameters

logger = logging.getLogger("midstep")

TESTED = ("0.5.23",)
APPLICATION = "SGLANG_HTTP_SERVER_APP_PATH"


def install() -> None:
    """Register every hook, and the sampler; where something is missing, only the hooks that refuse."""
    from .gate import Gate

    settings, problem = _settings()
    gate = Gate(settings, problem)
    seams, missing = probed(gate)
    if missing:
        gate.problem = f"this SGLang ({_version()}) lacks {missing[0]}; tested: {_tested()}"
    used = [seam for seam in seams if (seam.door or not missing) and seam.missing() is None]
    announcement = Announcement(gate, used)
    used.append(Seam(f"{TOKENIZER}.__init__", announcement.make, HookType.AFTER, ("self", "server_args"), door=True))
    for seam in used:
        HookRegistry.register(seam.target, seam.hook, seam.kind)
    if not missing:
        from . import sampler

        sampler.register()
    os.environ.setdefault(APPLICATION, "midstep_sglang.workers:app")
    models.offer()


def probed(gate: Any) -> tuple[list[Seam], list[str]]:
    """Return every seam, and what this SGLang lacks of them and of what midstep calls."""
    seams = doors(gate)
    try:
        from . import sampler  # noqa: F401  (what it imports may have moved)

        seams += engine_side()
        missing = [text for seam in seams if (text := seam.missing())]
        missing += [f"{place}({name})" for place, name in NEEDED if name not in parameters(place)]
    except Exception as error:  # a module of SGLang's that moved
        missing = [f"what midstep imports of it ({type(error).__name__}: {error})"]
    return seams, missing


def _settings() -> tuple[midstep.Configuration, str | None]:
    try:
        return configuration.current(), None
    except ValueError as error:
        return midstep.Configuration(), f"its configuration cannot be used: {error}"


class Announcement:
    """Says once, when a server's tokenizer process is ready, what was switched on and how to undo it."""

    def __init__(self, gate: Any, table: Sequence[Seam]) -> None:
        self.gate = gate
        self.table = tuple(table)

    def make(self, _: None, manager: Any, arguments: Any, *args: Any, **kwargs: Any) -> None:
        """AFTER TokenizerManager.__init__: verify the hooks, and log one line."""
        lost = [seam.target for seam in self.table if not seam.taken()]
        if lost and self.gate.problem is None:
            self.gate.problem = f"the hook on {lost[0]} did not take; the log says which plugin is in its way"
        problem = self.gate.problem or refusals.by_server(arguments)
        if problem is not None:
            logger.error("midstep serves no method here: %s. Requests that name one get HTTP 400.", problem)
        else:
            names = ", ".join(sorted(n for n in midstep.catalogue().methods if ":" not in n)) or "none"
            text = "midstep-sglang is installed, so midstep is on: methods %s; SGLang %s, tested: %s; undo: MIDSTEP=off"
            logger.warning(text, names, _version(), _tested())


def _version() -> str:
    return version("sglang")


def _tested() -> str:
    return ", ".join(TESTED)
