"""SGLang's engines for the tests: one in this process, a server that moves its requests, and one with settings.

The engine in this process does not overlap, and has a LoRA adapter. `server` overlaps, prefills in chunks, keeps its
radix cache, retracts a running request every few steps, and has parsers. `settled` serves the real model, with defaults
and limits in a midstep.toml.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import adapters, operating, worn
from engines.kept import elsewhere
from engines.sglang.in_process import in_process
from engines.sglang.servers import (
    ENVIRONMENT,
    PRIORITIES,
    SETTINGS,
    USUAL,
    Adapter,
    Models,
    Server,
    python_path,
    serve,
    serve_narrow,
    worked_out,
)
from ground import model

os.environ.update(ENVIRONMENT)
with warnings.catch_warnings():  # SGLang warns about every accelerator that it does not find
    warnings.simplefilter("ignore")
    import midstep_sglang.sampler  # noqa: F401

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """SGLang's own warnings are not ours to mend."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def models() -> Iterator[Models]:
    """Return the models, with the answers of midstep-eager."""
    with elsewhere(python_path()) as work_out:
        yield Models(str(model.paths().real), str(model.paths().small), work_out)


@pytest.fixture(scope="session")
def adapter(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """Make a LoRA adapter of the small model, with midstep-eager's answers."""
    folder = tmp_path_factory.mktemp("adapter")
    return Adapter(str(folder), json.loads(worked_out("-m", "engines.adapters", models.small, str(folder))))


@pytest.fixture(scope="session")
def worn_adapters(models: Models) -> Adapter:
    """Return the adapters of `engines.worn`, with midstep-eager's answers by case."""
    worked_out("-m", "engines.worn", models.small)
    folder, found = worn.made(models.small)
    return Adapter(str(folder), found)


@pytest.fixture(scope="session")
def engine(
    request: pytest.FixtureRequest,
    models: Models,
    adapter: Adapter,
    worn_adapters: Adapter,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """Run sglang.Engine in this process, without overlap, with room for three LoRA adapters and for none."""
    with in_process(
        tmp_path_factory.mktemp("engine") / "engine.log",
        request.session,
        model_path=models.small,
        dtype="float32",
        disable_overlap_schedule=True,
        sleep_on_idle=True,
        lora_paths=[f"adapter={adapter.folder}", *worn.paths(worn_adapters.folder)],
        max_lora_rank=adapters.RANK,
        max_loras_per_batch=4,
        lora_backend="torch_native",
        **USUAL,
    ) as running:
        yield running


@pytest.fixture(scope="session")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with overlap, chunks of 16 tokens, a retraction every three steps, and parsers."""
    folder = tmp_path_factory.mktemp("server")
    with serve(
        models.small,
        folder,
        "--enable-metrics",
        environment={
            "SGLANG_TEST_RETRACT": "1",
            "SGLANG_TEST_RETRACT_INTERVAL": "3",
            "MIDSTEP_CONFIG": operating.settings(folder),
        },
        chunked_prefill_size=16,
        tool_call_parser="hermes",
        reasoning_parser="kimi",
    ) as running:
        yield running


@pytest.fixture(scope="session")
def narrow(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with overlap, few rows, a small KV cache, priorities, and retractions.

    Companions come too late where a request's id says so.
    """
    with serve_narrow(models.small, tmp_path_factory.mktemp("narrow"), *PRIORITIES) as running:
        yield running


@pytest.fixture(scope="session")
def settled(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server of the real model that turns methods on for everybody, and takes embeddings."""
    folder = tmp_path_factory.mktemp("settled")
    (folder / "midstep.toml").write_text(SETTINGS)
    with serve(
        models.real,
        folder,
        "--disable-radix-cache",
        environment={"MIDSTEP_CONFIG": str(folder / "midstep.toml")},
    ) as running:
        yield running
