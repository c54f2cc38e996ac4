"""Seeded schedules: requests that come when they come, some of which leave before their answer ends.

A schedule says for each request when it comes, its priority, whether it is streamed, and when its client leaves; an
engine's test plays it. Times are in ticks, which the test gives a meaning. Every answer that is not left is exactly
midstep-eager's, and what is known of one that is left is its beginning.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines import guided, scenario
from engines.guided import is_guided
from engines.scenario import LONG, Case, Expected

SHORT = range(5)  # the seeds of `./test`; those of `./test --long` are in `played`
REQUESTS = 9
TICKS = 40
# A companion of one token is refused in vLLM; SGLang's repetition penalty leaves the prompt out of plain requests.
LEFT_OUT = ("the prompt's last token", "plain greedy, penalised")


def _fits(case: Case) -> bool:
    """Say whether a case fits into small caches: no long prompt, none among its companions."""
    return LONG not in case.prompt and LONG not in json.dumps(case.entry()) and case.name not in LEFT_OUT


CASES: tuple[Case, ...] = tuple(case for case in (*scenario.CASES, *guided.CASES) if _fits(case))


@dataclass(frozen=True)
class Arrival:
    """One request of a schedule.

    Args:
        name: unlike the others'.
        at: when it comes, in ticks.
        urgency: 0, or more for a request that goes before others.
        leaves: how many ticks after its coming its client leaves; None: it stays.
    """

    name: str
    case: Case
    at: int
    urgency: int
    leaves: int | None


def schedule(seed: int, cases: Sequence[Case] = CASES) -> list[Arrival]:
    """Return a schedule's requests in the order in which they come: half of them guided, a third left."""
    chance = random.Random(seed)
    with_companions = [case for case in cases if is_guided(case)]
    others = [case for case in cases if not is_guided(case)]
    half = REQUESTS // 2 + seed % 2
    chosen = chance.sample(with_companions, half) + chance.sample(others, REQUESTS - half)
    left = set(chance.sample(range(REQUESTS), REQUESTS // 3))
    arrivals = [
        Arrival(
            f"{seed}-{i}",
            replace(case, stream=i in left or case.stream or chance.random() < 0.3),
            int(chance.triangular(0, TICKS, 0)),
            chance.choice((0, 0, 1, 2)),
            chance.randrange(1, TICKS) if i in left else None,
        )
        for i, case in enumerate(chosen)
    ]
    return sorted(arrivals, key=lambda arrival: arrival.at)


def begins(case: Case, samples: Iterable[Sequence[int]], expected: Sequence[Expected]) -> bool:
    """Say whether the ids that a client had when it left are the beginnings of the right answers."""
    pairs = zip(samples, expected, strict=False)
    return all(tuple(ids) == one.ids[: len(ids)] for ids, one in pairs)


def summary(seed: int, arrivals: Sequence[Arrival], differences: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the line of one schedule in a result file."""
    return {
        "seed": seed,
        "requests": len(arrivals),
        "guided": sum(is_guided(arrival.case) for arrival in arrivals),
        "left": sum(arrival.leaves is not None for arrival in arrivals),
        **more,
        "differences": {name: repr(what) for name, what in differences.items()},
    }
