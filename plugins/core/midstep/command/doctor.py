"""Say what is installed, what works together and what does not, and what mends it; of a live server with --url."""

from __future__ import annotations

import os
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version

import torch

from .. import configuration
from ..errors import fields
from ..operation import kernels_off
from ..plugins import catalogue
from . import server
from .findings import Finding, line, show

GROUP = "midstep.doctor"  # an adapter's own lines: an entry point named as the engine's distribution
ENGINES = ("vllm", "sglang")
VARIABLES = ("MIDSTEP", "MIDSTEP_PLUGINS", "MIDSTEP_CONFIG", "MIDSTEP_KERNELS")


def declare(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--config", metavar="FILE", help="check this midstep.toml instead")
    parser.add_argument("--url", help="ask the server at this address instead")
    parser.add_argument("--key", help="the server's API key")


def run(given: Namespace) -> int:
    """Print what was found."""
    if given.config or given.url:
        findings = [*(_configuration(given.config) if given.config else ())]
        return show([*findings, *(server.asked(given.url, given.key) if given.url else ())])
    return show(installation())


def installation() -> Iterator[Finding]:
    """Look at everything in this environment."""
    yield Finding(f"midstep {version('midstep')}, torch {torch.__version__}, Python {platform.python_version()}")
    yield from _engines()
    yield from _methods()
    yield _kernels()
    yield from _variables()


def _engines() -> Iterator[Finding]:
    adapters = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not any(_version(name) for name in (*ENGINES, *adapters)):
        yield Finding("no engine is installed in this environment")
    for name in sorted({*ENGINES, *adapters}):
        found, adapter = _version(name), adapters.get(name)
        if found and adapter is None:
            yield Finding(f"{name} {found} is here, midstep-{name} is not", f"pip install midstep-{name}")
        elif adapter is not None and not found:
            yield Finding(f"midstep-{name} is here, {name} is not", f"pip install 'midstep-{name}[engine]'")
        elif adapter is not None:
            try:
                yield from adapter.load()()
            except Exception as error:  # an engine that does not import, whatever it raises
                yield Finding(f"{name} {found} cannot be used", f"{line(error)}; install {name} anew")


def _methods() -> Iterator[Finding]:
    found = catalogue()
    if os.environ.get("MIDSTEP") == "off":
        yield Finding("midstep is off: no method is loaded", "unset MIDSTEP")
    for name, method in sorted(found.methods.items()):
        if ":" not in name:
            yield Finding(f"method {name} of {found.distribution[name]}: {fields(method.Params)}")
    for _, reason in sorted(found.refused.items()):
        text, _, way = reason.rpartition("; ")
        yield Finding(text, way)


def _kernels() -> Finding:
    off = kernels_off()
    if off is None and not torch.cuda.is_available():
        off = "torch sees no CUDA device here"
    return Finding(f"kernels are off, the torch references run: {off}" if off else "kernels are on")


def _variables() -> Iterator[Finding]:
    for name, value in sorted(os.environ.items()):
        if name in VARIABLES:
            yield Finding(f"{name}={value}")
        elif name.startswith("MIDSTEP"):
            yield Finding(f"{name}={value} is nothing that midstep reads")
    yield from _restricted()
    if os.environ.get("MIDSTEP_CONFIG"):
        yield from _configuration(os.environ["MIDSTEP_CONFIG"])


def _restricted() -> Iterator[Finding]:
    plugins = entry_points(group="midstep")
    known = {name for entry in plugins for name in (entry.name, entry.dist.name if entry.dist else "")}
    for name in filter(None, map(str.strip, os.environ.get("MIDSTEP_PLUGINS", "").split(","))):
        if name not in known:
            about = f"MIDSTEP_PLUGINS names {name}, which is not installed"
            yield Finding(about, f"name some of {', '.join(sorted(known - {''})) or 'none'}, or unset it")


def _configuration(path: str) -> Iterator[Finding]:
    try:
        found = configuration.current(path)
    except ValueError as error:
        yield Finding(f"{path} cannot be used", str(error))
        return
    presets = ", ".join(sorted(found.presets)) or "none"
    defaults = ", ".join(sorted(found.defaults.methods)) or "none"
    yield Finding(f"{path} can be used: defaults: {defaults}; presets: {presets}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
