"""Installs midstep in a process of vLLM: it edits the configuration that vLLM made, and wraps the seams it needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

from . import adapters, admission, client, seams, support
from .worker import execute_model, forward_sample_tokens, sample_tokens

logger = logging.getLogger("vllm.midstep")

MODELS = ("LlamaForProcessRewardModel",)


def install() -> None:
    """Wrap the seams of this process; never raises. Where one cannot be wrapped, methods are refused."""
    if os.environ.get("MIDSTEP") == "off":
        _wrap(seams.ADMIT, partial(admission.process_inputs, off=True))
        return
    _wrap(seams.CONFIGURE, create_engine_config)
    _wrap(seams.ADMIT, admission.process_inputs)
    _wrap(seams.STAMP, client.add_request)
    _wrap(seams.COLLECT, client.process_outputs)
    _wrap(seams.REPORT, client.make_request_output)
    _wrap(seams.EXECUTE, execute_model)
    _wrap(seams.SAMPLE, sample_tokens)
    _wrap(seams.ENDPOINTS, load_endpoint_plugins)
    _offer_models()


def create_engine_config(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around EngineArgs.create_engine_config, and edit what it returns."""
    config = original(self, *args, **kwargs)
    try:
        enable(config)
        if config.lora_config is not None:
            for name, around in seams.ADAPTERS.items():
                _wrap(name, getattr(adapters, around))
    except Exception:
        logger.exception("midstep could not be switched on; the engine runs without it")
    return config


def enable(config: Any) -> None:
    """Add midstep's two halves to the configuration of an engine that generates; say so in one line."""
    model, scheduler = config.model_config, config.scheduler_config
    if model is None or model.runner_type != "generate":
        return
    untested = seams.untested()
    if untested is not None:
        logger.warning("midstep: %s", untested)
    reason = support.engine_reason(config)
    if reason is not None:
        logger.warning("midstep is off in this engine; requests that name a method get HTTP 400: %s", reason)
        return
    if not support.loaded(config):
        model.logits_processors = [*(model.logits_processors or ()), support.PROCESSOR]
    if scheduler.scheduler_cls is None:
        scheduler.scheduler_cls = support.SCHEDULER
    kept = "" if support.channel(config) else f" {scheduler.scheduler_cls} stays: stops end by end token, no reports;"
    logger.info(
        "midstep %s is on, because midstep-vllm is installed;%s MIDSTEP=off switches it off",
        version("midstep-vllm"),
        kept,
    )


def load_endpoint_plugins(original: Callable[..., Any], supported_tasks: Any = None) -> Any:
    """Stand around vllm.plugins.load_endpoint_plugins, which a server calls when it makes its routes."""
    plugins = list(original(supported_tasks))
    if "generate" in (supported_tasks or ()):
        _wrap(seams.GENERATE, admission.generate)
        _wrap(seams.UNLOAD, adapters.unload)
        for name in seams.BEAMS:
            _wrap(name, admission.to_beam_search_params)
        try:
            from .endpoint import Endpoint

            plugins.append(Endpoint())
        except Exception:
            logger.exception("midstep: /midstep/report is not served")
    return plugins


def _offer_models() -> None:
    """Offer what vLLM has no class for, without loading it."""
    try:
        from vllm.model_executor.models.registry import ModelRegistry

        for name in MODELS:
            if name not in ModelRegistry.get_supported_archs():
                ModelRegistry.register_model(name, f"midstep_vllm.prm:{name}")
    except Exception:
        logger.exception("midstep: its process reward models cannot be served")


def _wrap(name: str, around: Callable[..., Any]) -> None:
    try:
        if name == seams.SAMPLE and seams.exists(seams.EXECUTE) and not seams.exists(name):
            # vLLM leaves it to __getattr__
            owner = seams.find(name.rpartition(".")[0])
            owner.sample_tokens = forward_sample_tokens
        seams.wrap(name, around)
    except Exception:
        logger.exception("midstep could not be installed at %s", name)
