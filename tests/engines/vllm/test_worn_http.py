"""Adapters that a server loads and unloads while it runs, and the companions that wear them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from engines import adapters, scenario, worn
from engines.vllm.server import NAME, Server, serve

PROXY, NUDGING = (next(case for case in worn.CASES if case.name == name) for name in ("proxy tuning", "nudging"))


@pytest.fixture(scope="module")
def made(small: str) -> tuple[dict[str, Path], Mapping[str, list[int]]]:
    """Return the adapters' folders, and what midstep-eager answers."""
    folder, expected = worn.made(small)
    return worn.folders(folder), expected


@pytest.fixture(scope="module")
def server(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has no adapter yet, and takes some."""
    log = tmp_path_factory.mktemp("worn") / "log.txt"
    flags = ("--enable-lora", "--max-loras", "4", "--max-lora-rank", str(adapters.RANK))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
        with serve(small, log, *flags) as running:
            yield running


def load(server: Server, places: Mapping[str, Path], name: str) -> None:
    """Load an adapter."""
    status, text = server.call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(places[name])})
    assert status == 200, text


def unload(server: Server, name: str) -> None:
    """Unload an adapter."""
    status, text = server.call("/v1/unload_lora_adapter", {"lora_name": name})
    assert status == 200, text


def body(model: str, case: worn.Worn) -> dict[str, Any]:
    """Return the body of a case."""
    prompt = scenario.load_tokenizer(model)(case.prompt).input_ids
    asked = {"model": NAME, "prompt": prompt, "max_tokens": case.max_tokens, "temperature": case.temperature}
    return {**asked, "ignore_eos": True, "return_token_ids": True, "vllm_xargs": case.entry()}


def test_adapters_come_and_go(server: Server, small: str, made: Any) -> None:
    """Refused before it is loaded and after it is unloaded, exact in between, and exact when it is loaded again."""
    places, expected = made
    for loaded in (False, True, False, True):
        if loaded:
            load(server, places, worn.FIRST)
        for case in (PROXY, NUDGING):
            status, text = server.call("/v1/completions", body(small, case))
            if loaded:
                assert status == 200, text
                assert json.loads(text)["choices"][0]["token_ids"] == expected[case.name]
                continue
            (method,) = case.methods
            assert status == 400, text
            assert f"midstep: {method}: its companion " in text
            assert "wears the adapter 'math', which is not loaded; loaded: none" in text
        status, text = server.call("/v1/completions", {"model": NAME, "prompt": [5, 6], "max_tokens": 2})
        assert status == 200, text
        if loaded:
            unload(server, worn.FIRST)


def test_what_is_worn_stays_until_its_request_ends(server: Server, small: str, made: Any) -> None:
    """An adapter is unloaded under a companion: that answer is whole, and the next request is refused."""
    places, expected = made
    load(server, places, worn.FIRST)
    asked = body(small, PROXY)
    with closing(server.stream("/v1/completions", {**asked, "stream": True})) as chunks:
        found = next(chunks)["choices"][0]["token_ids"]
        unload(server, worn.FIRST)
        assert server.call("/v1/completions", asked)[0] == 400
        rest = [chunk["choices"][0]["token_ids"] for chunk in chunks]
    assert sum(map(len, rest)) > len(expected[PROXY.name]) // 2, "the answer had ended before the adapter went"
    assert [*found, *(token for ids in rest for token in ids)] == expected[PROXY.name]
