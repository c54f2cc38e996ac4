"""Companions that wear LoRA adapters: without overlap, and with overlap, chunks, retractions and few places."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from engines import adapters, scenario, worn
from engines.scenario import STORY
from engines.sglang.servers import Adapter, Models, Server, serve
from engines.worn import Worn

import midstep

PAIR = midstep.request(proxy_tuning={"expert": worn.EXPERT})


@pytest.fixture(scope="module")
def narrow(models: Models, worn_adapters: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with room for three kinds of rows at once: two adapters and none."""
    with serve(
        models.small,
        tmp_path_factory.mktemp("dressed"),
        "--lora-paths",
        *worn.paths(worn_adapters.folder),
        environment={"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"},
        max_lora_rank=adapters.RANK,
        max_loras_per_batch=3,
        lora_backend="torch_native",
        max_running_requests=6,
        max_total_tokens=900,
        chunked_prefill_size=16,
    ) as running:
        yield running


def request(model: str, case: Worn) -> dict[str, Any]:
    """Return a case as SGLang takes it."""
    params: dict[str, Any] = {
        "temperature": case.temperature,
        "max_new_tokens": case.max_tokens,
        "ignore_eos": True,
        "custom_params": case.entry() or None,
    }
    if case.seed is not None:
        params["sampling_seed"] = case.seed
    prompt = scenario.load_tokenizer(model)(case.prompt).input_ids
    return {"input_ids": prompt, "sampling_params": params, "lora_path": case.wears}


def test_each_companion_wears_its_own(engine: Any, models: Models, worn_adapters: Adapter) -> None:
    """All cases at once, dressed neighbours among them: the ids are those of midstep-eager with merged weights."""

    async def everything() -> list[Any]:
        asked = (engine.async_generate(**request(models.small, case)) for case in worn.CASES)
        return await asyncio.gather(*asked)

    answers = engine.loop.run_until_complete(everything())
    found = {case.name: answer["output_ids"] for case, answer in zip(worn.CASES, answers, strict=True)}
    assert found == worn_adapters.expected


def test_each_companion_wears_its_own_whatever_runs(narrow: Server, models: Models, worn_adapters: Adapter) -> None:
    """The same over HTTP with overlap: groups wait for rows and for adapters, are retracted, and read in chunks."""

    async def everything() -> list[Any]:
        async with httpx.AsyncClient(base_url=narrow.url, timeout=200) as client:
            asked = (client.post("/generate", json=request(models.small, case)) for case in worn.CASES)
            return [answer.raise_for_status().json() for answer in await asyncio.gather(*asked)]

    answers = asyncio.run(everything())
    found = {case.name: answer["output_ids"] for case, answer in zip(worn.CASES, answers, strict=True)}
    assert found == worn_adapters.expected
    assert sum(answer["meta_info"]["num_retractions"] for answer in answers) >= 1


def test_an_adapter_that_is_not_there_is_refused(narrow: Server, models: Models, worn_adapters: Adapter) -> None:
    """One never loaded, and one that was unloaded; loaded again, it is worn."""

    def ask(expert: str) -> httpx.Response:
        entry = midstep.request(proxy_tuning={"expert": expert})
        params = {"max_new_tokens": 2, "custom_params": entry}
        return narrow.post("/generate", {"text": STORY, "sampling_params": params})

    lost = ask("lora:lost")
    assert lost.status_code == 400
    assert "wears the adapter 'lost', which is not loaded; loaded: 'math', 'prose'" in lost.text
    assert narrow.post("/unload_lora_adapter", {"lora_name": worn.SECOND}).json()["success"]
    gone = ask(worn.ANTI)
    assert gone.status_code == 400
    assert "wears the adapter 'prose', which is not loaded; loaded: 'math'" in gone.text
    place = str(worn.folders(worn_adapters.folder)[worn.SECOND])
    assert narrow.post("/load_lora_adapter", {"lora_name": worn.SECOND, "lora_path": place}).json()["success"]
    assert ask(worn.ANTI).status_code == 200


def test_an_adapter_stays_as_long_as_it_is_worn(narrow: Server, models: Models, worn_adapters: Adapter) -> None:
    """Unloading waits for the companions that wear it, and their request's answer is whole."""
    case = next(case for case in worn.CASES if case.name == "proxy tuning")

    async def both() -> tuple[Any, Any]:
        async with httpx.AsyncClient(base_url=narrow.url, timeout=200) as client:
            answer = asyncio.create_task(client.post("/generate", json=request(models.small, case)))
            await asyncio.sleep(0.4)
            unloaded = await client.post("/unload_lora_adapter", json={"lora_name": worn.FIRST})
            done = answer.done()
            found = await answer
            assert done, "the adapter was unloaded under a companion"
            return found.json(), unloaded.json()

    answer, unloaded = asyncio.run(both())
    assert answer["output_ids"] == worn_adapters.expected[case.name]
    assert unloaded["success"]
    place = str(worn.folders(worn_adapters.folder)[worn.FIRST])
    assert narrow.post("/load_lora_adapter", {"lora_name": worn.FIRST, "lora_path": place}).json()["success"]
