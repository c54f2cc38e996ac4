"""Offers the models that SGLang has no class for; they are loaded only where a server names one."""

from __future__ import annotations

import logging
from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

logger = logging.getLogger("midstep")

MODELS = ("LlamaForProcessRewardModel", "Qwen2ForProcessRewardModel")
ASKED = "sglang.srt.models.registry._ModelRegistry.is_arch_supported"


def offer() -> None:
    """Make the names known; whatever this SGLang lacks for it, its other models are served as before."""
    try:
        from sglang.srt.configs import model_config

        # those that read the head at every occurrence of a token
        pooled = model_config._score_and_pool_archs
        pooled += [name for name in MODELS if name not in pooled]
        HookRegistry.register(ASKED, load, HookType.BEFORE)
    except Exception:
        logger.exception("midstep: its process reward models cannot be served")


def load(registry: Any, architecture: str) -> None:
    """BEFORE _ModelRegistry.is_arch_supported, which a server asks first: register one of ours."""
    if architecture in MODELS and architecture not in registry.models:
        from . import prm

        registry.models[architecture] = getattr(prm, architecture)
