"""Searches in SGLang programs: `s += midstep_sglang.search("answer", particle_filter={"n": 8}, reward=score)`.

As a generation's methods do, a search rides among the stop token ids of an `sgl.gen`; `Endpoint` takes it out, runs it
on its server, and answers with the best text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import sglang

import midstep
from midstep.drivers.sglang import SGLang
from midstep.searching.naming import named
from midstep.searching.rewards import Rewarding

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "stop")


@dataclass(frozen=True)
class Wish:
    """What `midstep.search` is asked for, but for the engine and the prompt."""

    asked: Mapping[str, Any]


def search(
    name: str | None = None,
    *,
    reward: Rewarding | None = None,
    seed: int = 0,
    budget: int | None = None,
    separator: str | Sequence[str] = "\n\n",
    sampling: Mapping[str, Any] | None = None,
    methods: Mapping[str, Any] | None = None,
    selector: Mapping[str, Any] | None = None,
    patience: Mapping[str, Any] | None = None,
    question: str | None = None,
    progress: Callable[[str, Mapping[str, Any]], None] | None = None,
    **plan: Mapping[str, Any],
) -> Any:
    """Return a generation whose text is the best answer of a search from the program's text so far.

    The arguments are those of `midstep.search`; what `sampling` does not say is the program's (`run(temperature=...)`).
    `s.get_meta_info(name)["search"]` is the whole `midstep.Result`. A fork searches on its own: give each its own seed,
    and name its reward rather than to hand one in that holds connections, since each runs in a thread of its own.

    Raises:
        ValueError: the search is not installed here, or a parameter is not allowed.
    """
    named(plan, midstep.Search, "search")
    asked = {"reward": reward, "seed": seed, "budget": budget, "separator": separator, "sampling": sampling or {}}
    asked |= {"methods": methods, "selector": selector, "patience": patience, "question": question}
    return sglang.gen(name, stop_token_ids=[Wish({**asked, "progress": progress, **plan})])


def answered(endpoint: Any, state: Any, params: Any, wish: Wish) -> tuple[str, dict[str, Any]]:
    """Run a search on the endpoint's server, and return its best text, and its result as meta_info.

    Raises:
        ValueError: the program has images, whose tokens a search cannot hand on.
    """
    if state.images_ or state.cur_images:
        raise ValueError("a search goes on from text alone; take the program's images out, or use midstep_sglang.gen")
    sampling = {key: getattr(params, key) for key in SAMPLING if getattr(params, key) not in (None, ())}

    async def run() -> midstep.Result:
        async with SGLang(endpoint.base_url, key=endpoint.api_key) as engine:
            return await midstep.search(
                engine, state.text_, **{**wish.asked, "sampling": {**sampling, **wish.asked["sampling"]}}
            )

    # in a thread of its own: where a program runs without one, its caller may have an event loop
    with ThreadPoolExecutor(1) as own:
        result = own.submit(asyncio.run, run()).result()
    return result.text, {"search": result}


def wished(params: Any) -> Wish | None:
    """Return the search among a generation's stop token ids, or None."""
    return next((one for one in params.stop_token_ids or () if isinstance(one, Wish)), None)
