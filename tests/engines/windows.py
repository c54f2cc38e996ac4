"""Tiny models with random weights whose layers see a window of the last tokens: all of them, or every second one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from engines import scenario
from engines.scenario import Case, Expected

WINDOW = 16  # tokens: fewer than any of the tests' answers has
KINDS = ("all slide", "every second one slides")
SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.15,  # large enough for answers that do not repeat themselves at once
}


def make(kind: str, small: str, folder: str | Path) -> str:
    """Write a model of one of KINDS with the tokenizer of the small model, and return its folder."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, MistralConfig, MistralForCausalLM

    made: Any
    folder = Path(folder)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if kind == KINDS[0]:
            made = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=WINDOW))
        else:
            layers = ["sliding_attention", "full_attention"] * 2
            made = Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, sliding_window=WINDOW, layer_types=layers))
            # its head is its embedding: the larger that is, the more an answer repeats its last token
            made.get_input_embeddings().weight.data.mul_(0.1)
    made.float().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (Path(small) / name).exists():
            shutil.copy(Path(small) / name, folder / name)
    return str(folder)


def answers(model: str, cases: Sequence[Case], window: int = WINDOW) -> dict[str, list[Expected]]:
    """Return midstep-eager's answers by name, as if the window were `window`.

    They are not kept: the model is made anew each time.
    """
    config = scenario.load(model)[0].config
    config.sliding_window = window
    try:
        return {case.name: scenario.answer(model, case) for case in cases}
    finally:
        config.sliding_window = WINDOW
