"""A decode step of a real vLLM on a GPU, 64 requests of an 8B shape, without and with each method.

    python benchmarks/engine_gpu.py [--only USE ...] [--rounds 6] [--tokens 128] [--seconds 540] [--eager]

Random weights in Llama-3.1-8B's shape, random prompts: no model is fetched. One engine with midstep installed; plain
requests and requests with a method take turns in it, in the reverse order in every second round. A step counts from
where every request decodes. A method with companions gets fewer requests, so that the rows are as many as the plain
ones'. Random weights give almost flat rows: the worst case for what visits the tokens it keeps.
Without a GPU, also under a stand-in for its driver, it says so and publishes nothing; engine_rehearsal.py is for that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import results
from overhead import asks

REQUESTS = 64
PROMPT = 64  # tokens
TOKENS = 128
BEFORE = 8  # tokens of each request before the clock starts
ROUNDS = 6
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
# Of methods that would end an answer, or have no defaults: what leaves the work and not the end.
PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "deepconf": {"threshold": 0.0},
    "repetition": {"times": 32, "least": 4096},
    "thinking_budget": {"maximum": 4096, "thinking": "now"},
}
OTHER, THIRD = list(range(1000, 1000 + PROMPT)), list(range(2000, 2000 + PROMPT))
# Of methods with companions: the rows of one request, and what it asks for.
GUIDED: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "cad": (2, {"instead": OTHER}),
    "cfg": (2, {"negative": OTHER}),
    "contrastive": (2, {"amateur": "base", "amateur_prompt": OTHER}),
    "dexperts": (2, {"anti": "base", "anti_prompt": OTHER}),
    "m3id": (2, {"instead": OTHER}),
    "nudging": (2, {"nudger": "base", "prompt": OTHER}),
    "preadd": (2, {"prefix": OTHER}),
    "proxy_tuning": (3, {"expert": "base", "expert_prompt": OTHER, "anti": "base", "anti_prompt": THIRD}),
}
CHAIN: Mapping[str, Mapping[str, Any]] = {"min_p": {"p": 0.1}, "p_less": {}, "top_nsigma": {}}
DISTRIBUTIONS = ("vllm", "torch", "triton")


@dataclass(frozen=True)
class Use:
    """What is asked for, by how many requests."""

    temperature: float
    extra: dict[str, Any] | None
    requests: int = REQUESTS


PLAIN = Use(1.0, None)


def uses() -> dict[str, Use]:
    """Return every installed method that runs in an engine, sampled; min_p greedy too; and a chain of three rules."""
    import midstep

    kinds = midstep.LogitsProcessor, midstep.Sampler, midstep.StopController
    methods = midstep.catalogue().methods
    found = {}
    for name in sorted(name for name, method in methods.items() if ":" not in name and issubclass(method, kinds)):
        if name in GUIDED:
            rows, params = GUIDED[name]
            requests = REQUESTS // rows
            found[f"{name}, {requests} requests"] = Use(1.0, asks(**{name: params}), requests)
        else:
            found[name] = Use(1.0, asks(**{name: PARAMETERS.get(name, {})}))
    found["min_p, greedy"] = Use(0.0, asks(min_p={}))
    found["min_p, p_less, top_nsigma"] = Use(1.0, asks(**CHAIN))
    return found


def tokenizer(folder: Path) -> None:
    """Leave a tokenizer of single bytes, and of what stands around a thought, for methods that look for texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<think>", "</think>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def start(folder: Path, eager: bool) -> Any:
    """Start the engine with the V2 runner, in a process of its own, as a server has it, unless the variable says no."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # compiled at the start otherwise; no use here asks for it
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    import vllm

    (folder / "config.json").write_text(json.dumps(SHAPE))
    tokenizer(folder)
    engine = vllm.LLM(
        model=str(folder),
        load_format="dummy",
        dtype="bfloat16",
        max_model_len=4096,
        max_num_seqs=REQUESTS,
        gpu_memory_utilization=0.5,
        enforce_eager=eager,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )
    assert engine.llm_engine.vllm_config.use_v2_model_runner
    return engine


def begin(engine: Any, name: str, use: Use, tokens: int) -> dict[str, int]:
    """Send the requests of one use; return how many tokens each has made by now, which is none."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = SamplingParams(
        temperature=use.temperature,
        max_tokens=tokens,
        ignore_eos=True,
        detokenize=False,
        extra_args=use.extra,
        output_kind=RequestOutputKind.DELTA,
    )
    made = {f"{name} {i}": 0 for i in range(use.requests)}
    for i, key in enumerate(made):
        prompt = [100 + (k * k * 31 + i * 101 + k * 7) % 100000 for k in range(PROMPT)]
        engine.llm_engine.add_request(key, {"prompt_token_ids": prompt, "type": "token"}, sampling)
    return made


def milliseconds(engine: Any, name: str, use: Use, tokens: int) -> float:
    """Return the time of a step in which all requests decode."""
    core, made = engine.llm_engine, begin(engine, name, use, tokens)
    began, left, why = None, 0, None
    while core.has_unfinished_requests():
        for output in core.step():
            made[output.request_id] += len(output.outputs[0].token_ids)
            why = (output.outputs[0].finish_reason, output.outputs[0].stop_reason) if output.finished else why
        if began is None and min(made.values()) >= BEFORE:
            began, left = time.perf_counter(), tokens - min(made.values())
    counts = sorted(set(made.values()))
    assert counts == [tokens], f"{name}: {counts} tokens instead of {tokens}; it ended by {why}"
    assert began is not None
    return (time.perf_counter() - began) / left * 1e3


def measure(engine: Any, name: str, use: Use, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return every round of one use, beside plain requests."""
    rows = []
    plain = replace(PLAIN, temperature=use.temperature)
    for repetition in range(options.rounds + 1):  # the first one warms up
        turns = [("plain_milliseconds", plain), ("milliseconds", use)]
        row: dict[str, Any] = {"use": name, "temperature": use.temperature, "requests": use.requests}
        for what, asked in turns if repetition % 2 else reversed(turns):
            row[what] = milliseconds(engine, f"{name} {repetition} {what}", asked, options.tokens)
        if repetition:
            rows.append(row)
    return rows


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    import torch

    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def configuration(engine: Any, tokens: int) -> dict[str, Any]:
    """Return what is run, and how the engine runs its model."""
    made = engine.llm_engine.vllm_config.compilation_config
    apart = os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"
    how = {"compilation": made.mode.name, "graphs": made.cudagraph_mode.name, "own_process": apart}
    return {"requests": REQUESTS, "prompt": PROMPT, "tokens": tokens, "before": BEFORE, "shape": SHAPE, **how}


def every(options: argparse.Namespace, name: str, versions: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Measure every use in one engine, and keep the results as `name`."""
    asked = uses()
    unknown = set(options.only or ()) - set(asked)
    assert not unknown, f"no such use: {', '.join(sorted(unknown))}; there are: {'; '.join(asked)}"
    began = time.perf_counter()
    refused: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        engine = start(Path(folder), options.eager)
        print(f"started: {time.perf_counter() - began:.1f} s", flush=True)
        run = {**about, **configuration(engine, options.tokens), "refused": refused}
        for use in options.only or asked:
            if time.perf_counter() - began > options.seconds:
                print(f"out of time before {use}; --only asks for some", flush=True)
                break
            try:
                rows += measure(engine, use, asked[use], options)
            except (ValueError, AssertionError) as error:  # what this engine cannot serve, or ended early
                refused[use] = str(error)
                print(f"{use}: refused: {error}", flush=True)
                continue
            print(f"{use}: {rows[-1]}, {time.perf_counter() - began:.1f} s", flush=True)
            results.write(name, versions, run, rows)


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", metavar="USE", help="these, in this order; no others are run or kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each use, 3 at least for an interval")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each request")
    parser.add_argument("--seconds", type=float, default=540, help="begin no use after so many, the start included")
    parser.add_argument("--eager", action="store_true", help="no torch.compile, no CUDA graphs: a first look")
    return parser.parse_args()


def main() -> None:
    """Measure every method, or say that there is no GPU."""
    import torch

    options = asked()
    if not results.gpu():
        print("no GPU here: nothing is measured, nothing is published")
        return
    every(options, "engine_gpu", {"gpu": torch.cuda.get_device_name(), **versions()}, {})


if __name__ == "__main__":
    main()
