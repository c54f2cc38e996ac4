"""What requests of three rows cost on this machine's processor: an expert and an anti-expert, each with an adapter.

    python3.11 benchmarks/triples.py vllm      # or sglang; about 8 minutes on two cores

B requests with `proxy_tuning` (bare, beside a row that wears one LoRA adapter and a row that wears another) take turns
with B plain requests, with 3 B plain ones, and with 3 B that wear what the rows of the triples wear, all in one engine
with LoRA. The limit: 3.1 plain rows.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import results
from overhead import asks, one_engine, part, say, worker

SIZES = (4, 8)  # guided requests
TOKENS = 48
ROUNDS = 8
EXPERT, ANTI = "math", "prose"  # the adapters of engines.worn
TRIPLE = asks(proxy_tuning={"expert": f"lora:{EXPERT}", "anti": f"lora:{ANTI}"})


def adapters(engine: str, model: str) -> str:
    """Return the folder of the adapters; they are trained where they are not there yet."""
    from ground import layers

    program = f"from engines import worn; print(worn.made({model!r})[0])"
    command = [str(layers.make(engine)), "-c", program]
    return subprocess.check_output(
        command, cwd=results.ROOT / "tests", env=layers.variables(engine), text=True
    ).split()[-1]


def measure(engine: str, model: str, rounds: int = ROUNDS) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the versions, and every round: processor and wall seconds of the four kinds of batch."""
    rows = []
    with worker(engine, model, {}, adapters(engine, model)) as running:
        running.together([part(4, TOKENS, TRIPLE)])  # warms up
        for size in SIZES:
            turns = {
                "triple": [part(size, TOKENS, TRIPLE)],
                "plain": [part(size, TOKENS)],
                "thrice": [part(3 * size, TOKENS)],
                "dressed": [part(size, TOKENS, None, adapter) for adapter in (None, EXPERT, ANTI)],
            }
            for round_ in range(rounds):
                say(f"{engine}: {size} triples, round {round_ + 1} of {rounds}")
                row: dict[str, Any] = {"what": "triples", "guided": size, "tokens": TOKENS, "round": round_}
                for name in turns if round_ % 2 else reversed(turns):
                    found = running.together(turns[name])
                    row |= {f"{name}_{key}": found[key] for key in ("cpu", "wall")}
                rows.append(row)
        return running.first["versions"], rows


def main() -> None:
    """Measure one engine, and keep the results beside those of the other."""
    one_engine("triples", __doc__ or "", measure, ROUNDS, {"adapters": "rank 8, q and v"})


if __name__ == "__main__":
    main()
