"""A tiny random model, and the plain way to guide it: a cache per prompt, and a loop. And a real tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from ground import model as ground
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import midstep
from midstep_eager import Options, generate

PROMPT = (5, 6, 7, 8, 9)
OTHER = (5, 8, 9)
TOKENS = 8
GREEDY = midstep.Sampling(temperature=0.0)


@cache
def model() -> Any:
    """Return the model: 97 tokens, two layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@cache
def worn() -> dict[str, Any]:
    """Return the model with an adapter merged into its weights, by the adapter's name."""
    found = {}
    for name, seed in (("math", 1), ("instruct", 2)):
        random = torch.Generator().manual_seed(seed)
        merged = found[name] = copy.deepcopy(model())
        with torch.no_grad():
            for part, module in merged.named_modules():
                if part.endswith(("q_proj", "v_proj", "lm_head")):
                    out, inside = module.weight.shape
                    a, b = torch.randn(4, inside, generator=random), torch.randn(out, 4, generator=random)
                    module.weight += 0.08 * b @ a
    return found


@cache
def tokenizer() -> Any:
    """Return the real model's tokenizer."""
    return AutoTokenizer.from_pretrained(ground.paths().real)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep a model so small from being shared out among threads, which wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def answer(
    sampling: midstep.Sampling = GREEDY, seed: int = 3, bias: dict[int, float] | None = None, **asked: Any
) -> list[int]:
    """Return what midstep-eager answers to PROMPT; adapters may be worn."""
    options = Options(max_tokens=TOKENS, seed=seed, ignore_eos=True, sampling=sampling, bias=bias or {})
    return generate(model(), None, PROMPT, options, adapters=worn(), **asked)[0].ids


@one_thread()
@torch.inference_mode()
def looped(said: Callable[[int, list[Tensor]], int], *rows: tuple[str | None, Sequence[int]]) -> list[int]:
    """Answer with what `said` returns of a position and each row's log-probabilities [V], float64.

    Args:
        rows: the name of the adapter that each wears, or None, and its prompt.
    """
    models = [model() if name is None else worn()[name] for name, _ in rows]
    fed: list[list[int]] = [list(prompt) for _, prompt in rows]
    caches: list[Any] = [None] * len(rows)
    ids: list[int] = []
    while len(ids) < TOKENS:
        outs = [
            one(torch.tensor([tokens]), past_key_values=cache, use_cache=True)
            for one, tokens, cache in zip(models, fed, caches, strict=True)
        ]
        caches = [out.past_key_values for out in outs]
        ids.append(said(len(ids), [out.logits[0, -1].double().log_softmax(-1) for out in outs]))
        fed = [[ids[-1]]] * len(rows)
    return ids


@one_thread()
@torch.inference_mode()
def plainly(
    combined: Callable[[int, Tensor, Tensor], Tensor],
    other: Sequence[int] = OTHER,
    bias: dict[int, float] | None = None,
) -> list[int]:
    """Answer greedily from `combined` of a position and both prompts' log-probabilities [V], float64."""
    said: list[int] = []
    caches: list[Any] = [None, None]
    fed = [list(PROMPT), list(other)]
    while len(said) < TOKENS:
        rows = []
        for i in range(2):
            out = model()(torch.tensor([fed[i]]), past_key_values=caches[i], use_cache=True)
            caches[i] = out.past_key_values
            logits = out.logits[0, -1].double()
            for token, value in (bias or {}).items():
                logits[token] += value
            rows.append(logits.log_softmax(-1))
        said.append(int(combined(len(said), *rows).argmax()))
        fed = [[said[-1]]] * 2
    return said
