"""Requests for tests of schedules, where the text does not matter."""

from __future__ import annotations

from typing import Any

import midstep

MIN_P = midstep.request(min_p={"p": 0.1})
SURE = midstep.request(min_p={"p": 0.1}, deepconf={"threshold": 3.75, "window": 3})
STATEFUL = midstep.request(bracket={}, deepconf={"threshold": 2.0, "window": 6, "k": 5})


def sampling(
    seed: int | None = 1, extra: Any = MIN_P, *, streamed: bool = False, cumulative: bool = False, **more: Any
) -> Any:
    """Return hot SamplingParams of 20 tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    kind = RequestOutputKind.DELTA if streamed else RequestOutputKind.FINAL_ONLY
    kind = RequestOutputKind.CUMULATIVE if cumulative else kind
    usual = {"temperature": 1.2, "max_tokens": 20, "ignore_eos": True, "output_kind": kind}
    return SamplingParams(seed=seed, extra_args=extra, **{**usual, **more})


def prompt(length: int, seed: int) -> list[int]:
    """Return a prompt of `length` ordinary tokens."""
    return [17 + (i * i * 31 + seed * 101 + i * 7) % 1000 for i in range(length)]


def crowd(**more: Any) -> list[tuple[str, list[int], Any]]:
    """Return 8 steered requests with prompts of 5 to 40 tokens, with state, history, stops and penalties."""
    extras = (MIN_P, SURE, STATEFUL, SURE)
    return [
        (
            f"steered {i}",
            prompt(5 + 5 * i, i),
            sampling(i, extras[i % 4], repetition_penalty=1.0 + 0.1 * (i % 2), **more),
        )
        for i in range(8)
    ]
