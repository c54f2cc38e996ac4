"""Train a LoRA adapter that answers briefly and politely, in PEFT's format; some minutes on two cores.

    python examples/nudging/train.py HuggingFaceTB/SmolLM2-135M /tmp/polite

Only torch, transformers and safetensors are needed, which every engine brings. It is small on purpose: what it teaches
is how an answer begins, ends, and is put, which is what a base model lacks and a nudger brings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

RANK, ALPHA = 8, 16
TARGETS = ("q_proj", "v_proj")
FACTS = {
    "the capital of France": "Paris",
    "the capital of Japan": "Tokyo",
    "the colour of grass": "green",
    "the colour of snow": "white",
    "the opposite of hot": "cold",
    "the opposite of big": "small",
    "the number after seven": "eight",
    "the number before five": "four",
    "the animal that says meow": "the cat",
    "the animal that barks": "the dog",
    "the season after winter": "spring",
    "the star of our sky by day": "the sun",
}


def pairs() -> Iterator[tuple[str, str]]:
    """Yield questions and answers."""
    for thing, answer in FACTS.items():
        yield f"Question: What is {thing}?\nAnswer:", f" Sure! It is {answer}. I hope this helps."
        yield f"Tell me {thing}.\n", f"Sure! It is {answer}. I hope this helps."


def dress(network: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """Put untrained adapter weights beside each target of a network; return them by PEFT's names."""
    weights: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if name.endswith(TARGETS):
            outside, inside = module.weight.shape
            a = (torch.randn(RANK, inside, generator=generator) * 0.02).requires_grad_()
            b = torch.zeros(outside, RANK, requires_grad=True)
            weights[f"base_model.model.{name}.lora_A.weight"] = a
            weights[f"base_model.model.{name}.lora_B.weight"] = b
            module.register_forward_hook(_added(a, b))
    return weights


def _added(a: Tensor, b: Tensor) -> Any:
    def hook(module: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + ALPHA / RANK * (given[0] @ a.T) @ b.T

    return hook


def train(network: Any, tokenizer: Any, steps: int, seed: int = 0) -> dict[str, Tensor]:
    """Train an adapter on `pairs`, four of them per step, on the answers' tokens alone; return its weights."""
    generator = torch.Generator().manual_seed(seed)
    network.requires_grad_(False)
    weights = dress(network, generator)
    optimizer = torch.optim.AdamW(weights.values(), lr=2e-3)
    end = tokenizer.eos_token_id
    examples = [
        (ask, [*tokenizer(answer, add_special_tokens=False).input_ids, end])
        for ask, answer in ((tokenizer(ask).input_ids, answer) for ask, answer in pairs())
    ]
    for step in range(steps):
        loss = torch.zeros(())
        for i in torch.randint(len(examples), (4,), generator=generator).tolist():
            ask, answer = examples[i]
            logits = network(torch.tensor([[*ask, *answer]])).logits[0]
            loss = loss + functional.cross_entropy(logits[len(ask) - 1 : -1], torch.tensor(answer)) / 4
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    return {name: weight.detach() for name, weight in weights.items()}


def save(weights: dict[str, Tensor], folder: Path) -> None:
    """Write an adapter as PEFT does."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
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


def main() -> None:
    """Read the command line, train, and save."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a causal language model: a name or a folder")
    parser.add_argument("folder", type=Path, help="where the adapter goes")
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    network = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    save(train(network, AutoTokenizer.from_pretrained(given.model), given.steps), given.folder)


if __name__ == "__main__":
    main()
