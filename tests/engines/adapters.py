"""A small LoRA adapter of a test model, and what midstep-eager answers with the adapter merged into its weights.

`python -m engines.adapters MODEL FOLDER` makes the adapter and prints the answers, for those who cannot load a network.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from engines import examples, matrix, scenario

import midstep

train = examples.load("nudging/train")
RANK, ALPHA, TARGETS = train.RANK, train.ALPHA, train.TARGETS
SAMPLING = {"temperature": 1.1, "seed": 4, "max_tokens": 10}


def entry() -> dict[str, Any]:
    """Return what the tests' dressed requests ask of midstep; `bracket` is only installed beside an engine."""
    return dict(midstep.request(min_p={"p": 0.1}, bracket={}))


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
    train.save(tensors, folder)
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


def answers(model: str, folder: Path) -> dict[str, list[int]]:
    """Make the adapter in `folder`, and return the ids of a hot, steered answer with it and of the model's own."""
    import midstep_eager

    network, tokenizer = scenario.load(model)
    make(network, folder)
    own = midstep.Sampling(temperature=SAMPLING["temperature"])
    options = midstep_eager.Options(
        max_tokens=int(SAMPLING["max_tokens"]), seed=int(SAMPLING["seed"]), ignore_eos=True, sampling=own
    )
    prompt = tokenizer(matrix.PROMPT).input_ids
    networks = {"adapter": merged(network, folder), "base": network}
    found = {
        name: list(midstep_eager.generate(one, None, prompt, options, extra=entry())[0].ids)
        for name, one in networks.items()
    }
    assert found["adapter"] != found["base"], "the adapter changes nothing: the test would not see it"
    return found


if __name__ == "__main__":
    print(json.dumps(answers(sys.argv[1], Path(sys.argv[2]))))
