"""Searches on a real vLLM: over HTTP, and in this process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from engines import reference_search, searching
from engines.reference_search import finds_the_same
from engines.searching import HOT, PLANS, Engines, ends_its_steps, over_http, searches
from engines.vllm import driver
from engines.vllm.server import Server, serve
from transformers import AutoTokenizer

import midstep
from midstep.drivers.openai import OpenAI
from midstep.searching import Prefix
from midstep_vllm.driver import VLLM

pytestmark = pytest.mark.skipif(driver.V2, reason="about the API process and the client: the run with V1 shows it")


@pytest.fixture(scope="module")
def tokenizer(small: str) -> Any:
    return AutoTokenizer.from_pretrained(small)


@pytest.fixture(scope="module")
def expected(small: str) -> dict[str, list[list[int]]]:
    """Return what midstep-eager finds, search by search."""
    return reference_search.reference(small)


@pytest.fixture(params=["with a tokenizer", pytest.param("by the server's words", marks=pytest.mark.long)])
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


def test_a_step_ends_with_its_separator_over_http(engines: Engines, tokenizer: Any) -> None:
    over_http(engines, lambda engine: ends_its_steps(engine, tokenizer))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(*plan))
def test_each_search_over_http(server: Server, tokenizer: Any, plan: dict[str, Any]) -> None:
    over_http(lambda: OpenAI(f"{server.url}/v1", tokenizer=tokenizer, sampling=HOT), lambda e: searches(e, **plan))


def test_a_copy_that_is_cancelled_alone_runs_on_in_vllm_and_is_counted(server: Server, tokenizer: Any) -> None:
    """Why early rejection's continuations are sent one by one; all copies together are cancelled at once."""

    async def tried(engine: Any) -> None:
        prompt = Prefix(await engine.encode(searching.PROMPT))
        asked: Any = {"sampling": searching.ENDLESS, "share": True}
        kept, cut = engine.extend([prompt] * 2, seeds=[1, 2], max_tokens=[60] * 2, **asked)
        await cut.reach(4)
        cut.cancel()
        await cut.gone()
        # both run side by side, so it was not much behind when the kept one had all that it needs
        assert (await kept.end()).made == 60
        assert 40 <= (await cut.end()).made <= 60
        assert ((await kept.end()).sent, (await cut.end()).sent) == (len(prompt.ids), 0)
        samples = engine.extend([prompt] * 2, seeds=[1, 2], max_tokens=[searching.MOST] * 2, **asked)
        await samples[0].reach(4)
        for sample in samples:
            sample.cancel()
        await searching.nothing_runs(lambda: running(server))
        assert (await samples[1].end()).made < searching.MOST

    over_http(lambda: OpenAI(f"{server.url}/v1", tokenizer=tokenizer, sampling=HOT), tried)


@pytest.mark.parametrize(
    "methods",
    [pytest.param({}, marks=pytest.mark.long), {"min_p": {"p": 0.05}}],
    ids=["vLLM draws", "midstep draws"],
)
def test_copies_of_a_prefix_are_sent_once_and_draw_the_same(server: Server, tokenizer: Any, methods: Any) -> None:
    """The samples of a request with n are those of requests one by one, whoever draws."""

    async def run() -> None:
        found = []
        for copies in (32, 1):
            async with OpenAI(f"{server.url}/v1", tokenizer=tokenizer, sampling=HOT, copies=copies) as engine:
                for plan in (*PLANS[:3], PLANS[4]):
                    result = await searching.searched(engine, 1, methods=methods, budget=None, **plan)
                    found.append((result.candidates, result.spent))
        for (shared, less), (alone, whole) in zip(found[:4], found[4:], strict=True):
            assert shared == alone
            assert less.prompt == whole.prompt == whole.sent
            assert less.sent <= 0.75 * whole.sent, (less, whole)
            assert less.cached is not None

    asyncio.run(run())


def test_a_search_that_needs_no_tokenizer(server: Server) -> None:
    over_http(lambda: OpenAI(f"{server.url}/v1", sampling=HOT), lambda engine: searches(engine, **PLANS[1]))


def test_cancelled_samples_end_in_the_server(server: Server, engines: Engines) -> None:
    over_http(engines, lambda engine: searching.cancels(engine, lambda: running(server)))


def test_a_cancelled_search_leaves_nothing_behind(server: Server, engines: Engines) -> None:
    over_http(engines, lambda engine: searching.cancelled_search_leaves_nothing(engine, lambda: running(server)))


def running(server: Server) -> float:
    _, text = server.call("/metrics")
    return sum(float(n) for n in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M))


def test_methods_reach_the_engine_and_its_refusals_reach_the_caller(engines: Engines) -> None:
    async def tried(engine: Any) -> None:
        await searching.methods_reach_the_engine(engine)
        await searching.refuses(engine, r"400.*p = 2", r"400.*context length")
        await searching.fills_the_context(engine, 512)

    over_http(engines, tried)


@pytest.mark.long
def test_a_server_that_is_killed_ends_the_search(small: str, tmp_path: Path) -> None:
    """Every branch is lost, with the reason, and nothing hangs; without a prefix cache, nothing is told of one."""
    with serve(small, tmp_path / "log.txt", "--enable-prompt-tokens-details", "--no-enable-prefix-caching") as server:
        over_http(lambda: OpenAI(f"{server.url}/v1", sampling=HOT), searching.knows_no_cache)
        over_http(lambda: OpenAI(f"{server.url}/v1", sampling=HOT), lambda e: searching.dies(e, server.kill))


def test_searches_find_what_midstep_eager_finds(server: Server, tokenizer: Any, expected: Any) -> None:
    """Where midstep draws, one seed gives one result, whatever the engine."""
    engine = OpenAI(f"{server.url}/v1", tokenizer=tokenizer, sampling=HOT)
    over_http(lambda: engine, lambda engine: finds_the_same(engine, expected, *PLANS))
    sampling = {**HOT, "vllm_xargs": midstep.request(draw=True)}
    engine = OpenAI(f"{server.url}/v1", tokenizer=tokenizer, sampling=sampling)
    over_http(lambda: engine, lambda engine: finds_the_same(engine, expected, PLANS[1], draws=True))


def test_an_engine_in_this_process(small: str, tokenizer: Any, expected: Any) -> None:
    async def run() -> None:
        async with in_process(small) as engine:
            await ends_its_steps(engine, tokenizer)
            for plan in PLANS[1:3]:
                await searches(engine, **plan)
            await finds_the_same(engine, expected, *PLANS)
            await searching.cancels(engine, lambda: 0)
            await searching.methods_reach_the_engine(engine)
            await searching.refuses(engine, "p = 2", "maximum model length|longer than")

    asyncio.run(run())
