"""A small LoRA adapter of a test model, and the same model with the adapter merged into its weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RANK = 8
ALPHA = 16
TARGETS = ("q_proj", "v_proj")


def make(network: Any, folder: Path) -> Path:
    """Write an adapter with seeded weights, in PEFT's format, and return its folder."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, module in network.named_modules():
        if name.endswith(TARGETS):
            outside, inside = module.weight.shape
            stem = f"base_model.model.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, inside, generator=random) * 0.05
            tensors[f"{stem}.lora_B.weight"] = torch.randn(outside, RANK, generator=random) * 0.05
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
        "base_model_name_or_path": "",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def merged(network: Any, folder: Path) -> Any:
    """Return a copy of the network with the adapter's product added to its weights."""
    from safetensors.torch import load_file

    tensors, own = load_file(folder / "adapter_model.safetensors"), copy.deepcopy(network)
    with torch.no_grad():
        for name, module in own.named_modules():
            if name.endswith(TARGETS):
                stem = f"base_model.model.{name}"
                product = tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
                module.weight += ALPHA / RANK * product
    return own
