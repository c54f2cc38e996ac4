"""SGLang's engines for the tests: one in this process without overlap, one server with everything that moves requests.

The server overlaps, prefills in chunks, keeps its radix cache, and retracts a running request every few steps.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import operating
from engines.sglang.servers import ENVIRONMENT, USUAL, Models, Server, expected, serve
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
def models() -> Models:
    """Return the models, with the answers of midstep-eager on the small one."""
    small = str(model.paths().small)
    return Models(str(model.paths().real), small, expected(small, "CASES"))


@pytest.fixture(scope="session")
def engine(models: Models) -> Iterator[Any]:
    """Run sglang.Engine in this process, without overlap."""
    import sglang

    running = sglang.Engine(
        model_path=models.small, dtype="float32", disable_overlap_schedule=True, sleep_on_idle=True, **USUAL
    )
    yield running
    running.shutdown()


@pytest.fixture(scope="session")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with overlap, chunks of 16 tokens, and a retraction every three steps."""
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
    ) as running:
        yield running
