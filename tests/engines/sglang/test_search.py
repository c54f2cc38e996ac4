"""Searches on a real SGLang: over its own HTTP, and in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import reference_search, searching
from engines.reference_search import finds_the_same
from engines.searching import HOT, PLANS, Engines, ends_its_steps, over_http, searches
from engines.sglang.servers import Models, Server, serve, worked_out
from transformers import AutoTokenizer

import midstep
from midstep.drivers.openai import OpenAI
from midstep.drivers.sglang import SGLang
from midstep.searching import NothingFoundError


@pytest.fixture(scope="module")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the small model that streams new ids only; the engine in this process streams all ids each time."""
    with serve(models.small, tmp_path_factory.mktemp("searched"), "--incremental-streaming-output") as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer(models: Models) -> Any:
    return AutoTokenizer.from_pretrained(models.small)


@pytest.fixture(scope="module")
def expected(models: Models) -> Any:
    """Return what midstep-eager finds, search by search."""
    worked_out("-m", "engines.reference_search", models.small)
    return reference_search.reference(models.small)


@pytest.fixture(params=["with a tokenizer", pytest.param("by the server's words", marks=pytest.mark.long)])
def engines(request: pytest.FixtureRequest, server: Server, tokenizer: Any) -> Engines:
    """Open the driver, with a tokenizer of its own or without."""
    own = tokenizer if request.param == "with a tokenizer" else None
    return lambda: SGLang(server.url, tokenizer=own, sampling=HOT)


def test_a_step_ends_with_its_separator_over_http(engines: Engines, tokenizer: Any) -> None:
    over_http(engines, lambda engine: ends_its_steps(engine, tokenizer))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(*plan))
def test_each_search_over_http(server: Server, tokenizer: Any, plan: dict[str, Any]) -> None:
    over_http(lambda: SGLang(server.url, tokenizer=tokenizer, sampling=HOT), lambda e: searches(e, **plan))


def test_a_search_that_needs_no_tokenizer(server: Server) -> None:
    over_http(lambda: SGLang(server.url, sampling=HOT), lambda engine: searches(engine, **PLANS[1]))


def test_cancelled_samples_end_in_the_server(server: Server, engines: Engines) -> None:
    over_http(engines, lambda engine: searching.cancels(engine, server.running))


def test_a_cancelled_search_leaves_nothing_behind(server: Server, engines: Engines) -> None:
    over_http(engines, lambda engine: searching.cancelled_search_leaves_nothing(engine, server.running))


def test_methods_reach_the_engine_and_its_refusals_reach_the_caller(engines: Engines) -> None:
    async def tried(engine: Any) -> None:
        await searching.methods_reach_the_engine(engine)
        await searching.refuses(engine, "p = 2", "longer than the model's context length")
        await searching.fills_the_context(engine, 1024)

    over_http(engines, tried)


def test_searches_find_what_midstep_eager_finds(server: Server, tokenizer: Any, expected: Any) -> None:
    """Where midstep draws, one seed gives one result, whatever the engine."""
    engine = SGLang(server.url, tokenizer=tokenizer, sampling=HOT)
    over_http(lambda: engine, lambda engine: finds_the_same(engine, expected, *PLANS))
    over_http(lambda: engine, lambda engine: finds_the_same(engine, expected, PLANS[1], draws=True))


def test_each_driver_names_the_other_one(server: Server) -> None:
    async def run() -> None:
        with pytest.raises(RuntimeError, match=r"use midstep.drivers.sglang.SGLang\(url\)"):
            async with OpenAI(f"{server.url}/v1"):
                pass
        async with OpenAI(f"{server.url}/v1", model="default") as engine:
            with pytest.raises(NothingFoundError, match=r"use midstep.drivers.sglang.SGLang\(url\)"):
                await midstep.search(engine, [5, 6, 7], best_of_n={"n": 1, "max_tokens": 4}, question="?")

    asyncio.run(run())


@pytest.mark.long
def test_a_server_that_is_killed_ends_the_search(models: Models, tmp_path: Path) -> None:
    """Every branch is lost, with the reason, and nothing hangs; without a prefix cache, nothing is told of one."""
    with serve(models.small, tmp_path, "--disable-radix-cache") as server:
        over_http(lambda: SGLang(server.url, sampling=HOT), searching.knows_no_cache)
        over_http(lambda: SGLang(server.url, sampling=HOT), lambda e: searching.dies(e, server.kill))


def test_an_engine_in_this_process(engine: Any, tokenizer: Any, expected: Any) -> None:
    from midstep_sglang import driver

    own = driver.SGLang(engine, sampling=HOT)

    async def run() -> None:
        await ends_its_steps(own, tokenizer)
        for plan in PLANS[1:3]:
            await searches(own, **plan)
        await finds_the_same(own, expected, *PLANS)
        await finds_the_same(own, expected, PLANS[1], draws=True)
        await searching.cancels(own, running)
        await searching.cancelled_search_leaves_nothing(own, running)
        await searching.methods_reach_the_engine(own)
        await searching.refuses(own, "p = 2", "longer than the model's context length")
        await searching.fills_the_context(own, 1024)

    def running() -> float:
        return len(engine.tokenizer_manager.rid_to_state)

    engine.loop.run_until_complete(run())
    with pytest.raises(NothingFoundError, match=r"event loop of its first call; search there"):
        asyncio.run(midstep.search(own, [5, 6], best_of_n={"n": 1, "max_tokens": 4}))
