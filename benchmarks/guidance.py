"""What guided requests cost a real engine on this machine's processor: each has a companion, a second row.

    python3.11 benchmarks/guidance.py vllm      # or sglang; about 6 minutes on two cores

B guided requests take turns with B plain ones and with 2 B plain ones, in one engine; each guided request's companion
has a prompt of the same length and another text. The limit is the second row: half of the throughput of B plain
requests, as much as that of 2 B plain ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from overhead import asks, one_engine, say, worker

SIZES = (4, 16)  # guided requests; the engine has twice as many seats
TOKENS = 48
ROUNDS = 8
COMPANION = [18 + (k * k * 37 + k * 11) % 1000 for k in range(16)]
GUIDED = asks(cfg={"scale": 1.5, "negative": COMPANION})


def measure(engine: str, model: str, rounds: int = ROUNDS) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the versions, and every round: processor and wall seconds of the three kinds of batch."""
    rows = []
    with worker(engine, model, {}) as running:
        running.order(SIZES[0], 0.0, GUIDED, TOKENS)  # warms up
        for size in SIZES:
            for round_ in range(rounds):
                say(f"{engine}: {size} guided requests, round {round_ + 1} of {rounds}")
                row: dict[str, Any] = {"what": "guidance", "guided": size, "tokens": TOKENS, "round": round_}
                turns = [("plain", size, None), ("guided", size, GUIDED), ("twice", 2 * size, None)]
                for name, requests, extra in turns if round_ % 2 else reversed(turns):
                    found = running.order(requests, 0.0, extra, TOKENS)
                    row |= {f"{name}_{key}": value for key, value in found.items()}
                rows.append(row)
        return running.first["versions"], rows


def main() -> None:
    """Measure one engine, and keep the results beside those of the other."""
    one_engine("guidance", __doc__ or "", measure, ROUNDS, {"prompt": 16, "greedy": True})


if __name__ == "__main__":
    main()
