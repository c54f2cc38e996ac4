"""What plain requests lose by guided ones in their batch, on this processor: the rows' share, and nothing else.

    python3.11 benchmarks/neighbours.py vllm      # or sglang; about 4 minutes on two cores

B plain requests beside G guided ones, each of which is two rows, take turns with the same B beside 2 G plain ones, in
one engine. The ones beside them have longer answers, so that none of the B ever runs alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from guidance import GUIDED
from overhead import one_engine, part, say, worker

MIXES = ((4, 4), (8, 8))  # neighbours, guided requests
TOKENS, LONGER = 48, 64
ROUNDS = 8


def measure(engine: str, model: str, rounds: int = ROUNDS) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the versions, and every round: the seconds that a neighbour took beside either."""
    rows = []
    with worker(engine, model, {}) as running:
        running.together([part(4, TOKENS), part(4, TOKENS, GUIDED)])  # warms up
        for neighbours, guided in MIXES:
            beside = {"guided": part(guided, LONGER, GUIDED), "plain": part(2 * guided, LONGER)}
            for round_ in range(rounds):
                say(f"{engine}: {neighbours} neighbours, {guided} guided, round {round_ + 1} of {rounds}")
                row: dict[str, Any] = {"what": "neighbours", "neighbours": neighbours, "guided": guided}
                for name in beside if round_ % 2 else reversed(beside):
                    found = running.together([part(neighbours, TOKENS), beside[name]])
                    row |= {f"{name}_seconds": found["seconds"][0], f"{name}_wall": found["wall"]}
                rows.append(row | {"round": round_})
        return running.first["versions"], rows


def main() -> None:
    """Measure one engine, and keep the results beside those of the other."""
    one_engine("neighbours", __doc__ or "", measure, ROUNDS, {"tokens": TOKENS, "longer": LONGER})


if __name__ == "__main__":
    main()
