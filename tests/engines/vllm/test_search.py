"""Searches on a real vLLM: over HTTP, and in this process."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from engines.vllm import driver
from engines.vllm.server import Server, serve
from transformers import AutoTokenizer

import midstep
from midstep.drivers.openai import OpenAI
from midstep.searching import Boundary, NothingFoundError, Prefix
from midstep_vllm.driver import VLLM

pytestmark = pytest.mark.skipif(driver.V2, reason="about the API process and the client: the run with V1 shows it")

PROMPT = "Once upon a time"
HOT = {"temperature": 1.0}
ENDLESS = {"ignore_eos": True}


@pytest.fixture(scope="module")
def server(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the small model that tells its prefix-cache hits."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serve(small, log, "--enable-prompt-tokens-details") as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer(small: str) -> Any:
    return AutoTokenizer.from_pretrained(small)


Engines = Callable[[], Any]


@pytest.fixture(params=["with a tokenizer", "by the server's words"])
def engines(request: pytest.FixtureRequest, server: Server, tokenizer: Any) -> Engines:
    """Open the driver, with a tokenizer of its own or without."""
    own = tokenizer if request.param == "with a tokenizer" else None
    return lambda: OpenAI(f"{server.url}/v1", tokenizer=own, sampling=HOT)


@asynccontextmanager
async def in_process(model: str) -> AsyncIterator[VLLM]:
    """An AsyncLLM."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **driver.USUAL))
    try:
        yield VLLM(llm, sampling=HOT)
    finally:
        llm.shutdown()


async def extended(engine: Any, ids: Sequence[int], seed: int, most: int, *until: str, opened: int = 0) -> Any:
    prefix = Prefix(tuple(ids), opened)
    (sample,) = engine.extend([prefix], seeds=[seed], max_tokens=[most], until=until, logprobs=True)
    return await sample.end()


async def ends_its_steps(engine: Any, tokenizer: Any) -> None:
    """A separator whose characters lie in two tokens ends the step with the second one, and changes no id."""
    prompt = await engine.encode(PROMPT)
    whole = await extended(engine, prompt, 3, 40)
    assert (len(whole.ids), len(whole.logprobs), whole.ended) == (40, 40, "tokens"), whole
    assert all(logprob <= 0 for logprob in whole.logprobs)
    assert (await extended(engine, prompt, 3, 40)).ids == whole.ids
    assert (await extended(engine, prompt, 4, 40)).ids != whole.ids

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    for at in range(6, 12):
        separator = text(whole.ids[at - 1 : at])[-1:] + text(whole.ids[at : at + 1])[:1]
        if "\ufffd" in separator:
            continue
        wanted = Boundary([separator], text).find(whole.ids)
        assert wanted is not None
        step = await extended(engine, prompt, 3, 40, separator)
        if text(step.ids).startswith(separator):
            continue  # the server takes it for a step; a search goes on behind it
        assert (step.ids, step.ended) == (whole.ids[:wanted], "step"), separator


async def searches(engine: Any, **plan: Any) -> None:
    """One seed, one result; what it spent is what its answers have, and no more than the budget."""

    def letters(prompt: str, steps: list[str]) -> list[float]:
        assert prompt == PROMPT
        return [sum(c in "aeiou" for c in step) / max(len(step), 1) for step in steps]

    async def one(seed: int) -> midstep.Result:
        return await midstep.search(engine, PROMPT, reward=letters, separator=" the", seed=seed, budget=400, **plan)

    first, again, other = await one(1), await one(1), await one(2)
    assert (first.candidates, first.weights) == (again.candidates, again.weights)
    assert first.candidates != other.candidates
    assert 0 < first.spent.engine <= 400
    assert first.spent.cached is not None
    if "best_of_n" not in plan:
        assert again.spent.cached > 0, again.spent


PLANS: list[dict[str, Any]] = [
    {"best_of_n": {"n": 4, "max_tokens": 48}},
    {"step_beam": {"beams": 2, "m": 2, "step_tokens": 24, "max_steps": 3}},
    {"particle_filter": {"n": 4, "step_tokens": 24, "max_steps": 3}},
    {"dvts": {"trees": 2, "m": 2, "step_tokens": 24, "max_steps": 3}},
    {"rebase": {"width": 4, "step_tokens": 24, "max_steps": 3}},
    {"early_rejection": {"beams": 1, "m": 3, "tau": 4, "step_tokens": 24, "max_steps": 3}},
]


def over_http(engines: Engines, tried: Callable[[Any], Any]) -> None:
    async def run() -> None:
        async with engines() as engine:
            await tried(engine)

    asyncio.run(run())


def test_a_step_ends_with_its_separator_over_http(engines: Engines, tokenizer: Any) -> None:
    over_http(engines, lambda engine: ends_its_steps(engine, tokenizer))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(*plan))
def test_each_search_over_http(server: Server, tokenizer: Any, plan: dict[str, Any]) -> None:
    over_http(lambda: OpenAI(f"{server.url}/v1", tokenizer=tokenizer, sampling=HOT), lambda e: searches(e, **plan))


def test_a_search_that_needs_no_tokenizer(engines: Engines) -> None:
    over_http(engines, lambda engine: searches(engine, **PLANS[1]))


def test_cancelled_samples_end_in_the_server(server: Server, engines: Engines) -> None:
    """One of three is cancelled: the others end as they would have, and nothing runs on."""

    async def tried(engine: Any) -> None:
        prompt = await engine.encode(PROMPT)
        samples = engine.extend([Prefix(prompt)] * 3, seeds=[1, 2, 3], max_tokens=[60, 450, 60], sampling=ENDLESS)
        begun = await samples[1].reach(4)
        assert len(begun.ids) == 4
        samples[1].cancel()
        ends = await asyncio.gather(*(sample.end() for sample in samples))
        assert [end.ended for end in ends] == ["tokens", "cancelled", "tokens"]
        (alone,) = engine.extend([Prefix(prompt)], seeds=[1], max_tokens=[60], sampling=ENDLESS)
        assert ends[0].ids == (await alone.end()).ids
        assert ends[1].made < 450
        deadline = time.monotonic() + 1
        while running(server) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert running(server) == 0

    over_http(engines, tried)


def running(server: Server) -> float:
    _, text = server.call("/metrics")
    return sum(float(n) for n in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M))


def test_methods_reach_the_engine_and_its_refusals_reach_the_caller(engines: Engines) -> None:
    async def tried(engine: Any) -> None:
        async def search(**more: Any) -> midstep.Result:
            return await midstep.search(engine, PROMPT, best_of_n={"n": 2, "max_tokens": 8}, **more)

        plain, narrow = await search(), await search(methods={"min_p": {"p": 1.0}})
        assert len({candidate.ids for candidate in narrow.candidates}) == 1  # only the best token stays
        assert len({candidate.ids for candidate in plain.candidates}) == 2
        with pytest.raises(NothingFoundError, match=r"400.*p = 2"):
            await search(methods={"min_p": {"p": 2}})
        with pytest.raises(NothingFoundError, match=r"400.*context length"):
            await midstep.search(engine, [5] * 600, best_of_n={"n": 2, "max_tokens": 8})

    over_http(engines, tried)


def test_an_engine_in_this_process(small: str, tokenizer: Any) -> None:
    async def run() -> None:
        async with in_process(small) as engine:
            await ends_its_steps(engine, tokenizer)
            for plan in PLANS[1:3]:
                await searches(engine, **plan)
            prompt = await engine.encode(PROMPT)
            kept, cut = engine.extend([Prefix(prompt)] * 2, seeds=[1, 2], max_tokens=[30, 450], sampling=ENDLESS)
            await cut.reach(4)
            cut.cancel()
            assert ((await cut.end()).ended, (await kept.end()).ended) == ("cancelled", "tokens")
            with pytest.raises(NothingFoundError, match="p = 2"):
                await midstep.search(engine, PROMPT, best_of_n={"n": 1, "max_tokens": 8}, methods={"min_p": {"p": 2}})

    asyncio.run(run())
