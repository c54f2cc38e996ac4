"""`await midstep.search(...)`: one prompt, one search, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..beside import Search, Selector
from ..configuration import Limits
from ..methods import Params
from .budget import Spent
from .engine import Engine
from .limits import check_reading, check_width
from .naming import checked, named
from .problem import Problem, Settings
from .result import Result
from .rewards import Rewarding
from .rewards import reward as found_reward
from .scoring import Patience, Scorer


async def search(
    engine: Engine,
    prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
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
    limits: Limits | None = None,
    progress: Callable[[str, Mapping[str, Any]], None] | None = None,
    spent: Spent | None = None,
    **plan: Mapping[str, Any],
) -> Result:
    """Search one prompt: `await midstep.search(engine, prompt, particle_filter={"n": 8}, reward=score)`.

    Args:
        engine: a driver (`midstep.drivers`), or anything else that is an `Engine`.
        prompt: a text, a chat's messages, or token ids.
        reward: an installed reward's name, that name with parameters as in {"qwen_prm": {"url": ...}}, a `Reward`, or a
            function of prompt and steps, sync or async.
        seed: with one engine and one seed, the result is the same, whatever arrives first.
        budget: tokens of engine and reward together that are never exceeded; None: no limit but the search's own.
        separator: what ends a step, one text or several.
        sampling: temperature, top_p and the like, by OpenAI's names.
        methods: midstep methods for every token, as in `midstep.request`.
        selector: an installed selector with its parameters, such as {"vote": {"how": "weighted"}}; None: the search's
            own weights count.
        patience: time-outs, tries and the policy when the reward is gone; the fields of `Patience`.
        question: the prompt as the reward gets it; else the text of `prompt`, of messages the last one's.
        limits: of a server, `midstep.Configuration.limits`: what is wider is refused, and what the reward may not read
            ends branches as a budget does; None: none.
        progress: called with the address and the trace of each part of the tree, whenever it changes.
        spent: where tokens are counted while it runs, for who must know them of a search that fails too; None: in the
            result alone.
        plan: exactly one search with its parameters.

    Raises:
        ValueError: a name, a parameter or a budget is not allowed, or the search is beyond the limits.
        RewardGoneError: an answer was not scored, and the policy is to fail.
        NothingFoundError: every branch was lost.
    """
    finder, params = named(plan, Search, "search")
    chooser = None if selector is None else named(selector, Selector, "selector")
    if budget is not None and budget < 1:
        raise ValueError(f"budget = {budget}; allowed: 1 or more tokens, or None for no limit")
    until = (separator,) if isinstance(separator, str) else tuple(separator)
    if not until or not all(until):
        raise ValueError(f"separator = {separator!r}; allowed: a text, or several, none of them empty")
    if reward is None and finder.needs_reward:
        raise ValueError(f"{finder.name} goes by a reward, and none is named; pass reward=...")
    if limits is not None:
        check_width(finder, params, limits)
    asking = checked(Patience, patience, "patience")
    scores, ours = (None, False) if reward is None else found_reward(reward)
    try:
        ids = await _ids(engine, prompt)
        if limits is not None and scores is not None:
            check_reading(finder, params, scores, len(ids), limits)
        spent, logprobs = spent or Spent(), chooser is not None and chooser[0].needs_logprobs(chooser[1])
        problem = Problem(
            engine,
            ids,
            question if question is not None else await _question(engine, prompt, ids),
            None if scores is None else Scorer(scores, asking, spent, finder.unit_scores),
            seed=seed,
            budget=budget,
            settings=Settings(until, sampling or {}, methods or {}, logprobs),
            spent=spent,
            limits=limits,
            progress=progress,
        )
        began = time.monotonic()
        try:
            result = await finder().run(problem, params)
        finally:
            await problem.close()
    finally:
        if scores is not None and ours:
            await scores.close()
    if chooser is not None:
        result = await chosen(result, *chooser)
    about: dict[str, Any] = {
        "search": finder.name,
        "params": params.model_dump(),
        "budget": budget,
        "prompt_tokens": len(ids),
    }
    about |= {"reward": None if scores is None else scores.name}
    about |= {"question": problem.question, "chosen": problem.tree.find(result.best.ids)}
    about |= {"candidates": [problem.tree.find(candidate.ids) for candidate in result.candidates]}
    ending = {"weights": list(result.weights), "text": result.text, "seconds": time.monotonic() - began}
    return replace(result, spent=spent, trace={**problem.traced(), **about, **ending})


async def chosen(result: Result, selector: type[Selector], params: Params) -> Result:
    """Return the result with a selector's weights; what was cut off weighs nothing beside what was finished."""
    finished = [i for i, candidate in enumerate(result.candidates) if candidate.ended == "end"]
    places = finished or list(range(len(result.candidates)))
    weights = [0.0] * len(result.candidates)
    # comparing answers may take long, and this may be a server's loop
    found: Any = await asyncio.to_thread(selector().weigh, [result.candidates[i] for i in places], params)
    found = await found if isinstance(found, Awaitable) else found
    for i, weight in zip(places, found, strict=True):
        weights[i] = weight
    return replace(result, weights=tuple(weights))


async def _ids(engine: Engine, prompt: Any) -> tuple[int, ...]:
    if not isinstance(prompt, str) and all(isinstance(part, int) for part in prompt):
        ids = tuple(prompt)
    else:
        ids = await engine.encode(prompt)
    if not ids:
        raise ValueError("the prompt has no tokens; pass a text, messages or token ids")
    return ids


async def _question(engine: Engine, prompt: Any, ids: Sequence[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[-1], Mapping):
        return str(prompt[-1].get("content", ""))
    return await engine.decode(ids)
