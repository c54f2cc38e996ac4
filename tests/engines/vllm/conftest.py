"""vLLM in this process, one engine per configuration, and a server; all of V2 with VLLM_USE_V2_MODEL_RUNNER=1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from engines.vllm.server import Server, serve
from ground import model

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"
# About the API process or about time, the same for both runners, which is slow in Triton's interpreter.
ONCE = ("test_http.py", "test_refusals.py", "test_reports.py", "test_worn_http.py")
# But these, which make cells of the matrix.
BOTH = ("test_echo", "test_the_tool_parser", "test_the_reasoning_parser")
# Run with async scheduling off too; the rest runs with it on, as on every GPU.
TWICE = ("test_answers.py",) if V2 else ("test_answers.py", "test_batch.py")
ALSO = (
    "test_one_request_is_guided",
    "test_a_companion_that_is_late_is_caught",
    "test_groups_are_chunked_and_preempted",
    "test_a_crowd_of_guided_requests",
    "test_many_schedules",
    "test_a_weak_step_ends_its_request",
)
# Of step rewards, which the scheduler's half judges, those that look at each runner's tokens.
JUDGED = ("test_steps_are_judged", "test_a_weak_step_ends_its_request")
# About the scheduler, which is the same for both runners.
SCHEDULER = (
    "test_guided_requests_join_and_leave",
    "test_prefix_cache_hits",
    "test_groups_that_have_seats_are_admitted_at_once",
    "test_nobody_starves",
    "test_what_cannot_be_served_is_refused",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave vLLM's and torch's own warnings alone; leave out what another run has shown."""
    kept, left_out = [], []
    for item in items:
        if item.path.parent.name == "vllm":
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            again = "[sync" in item.name and item.path.name not in TWICE and not item.name.startswith(ALSO)
            once = item.path.name in ONCE and item.name not in BOTH
            once |= item.path.name == "test_companions.py" and item.name.startswith(SCHEDULER)
            once |= item.path.name == "test_step_reward.py" and not item.name.startswith(JUDGED)
            if again or (V2 and once):
                left_out.append(item)
                continue
        kept.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(scope="session")
def small() -> str:
    """The model with 1,024 tokens."""
    return str(model.paths().small)


@pytest.fixture(scope="session")
def real() -> str:
    """The model with its whole vocabulary."""
    return str(model.paths().real)


@pytest.fixture(scope="session", params=[False, True], ids=["sync", "async"])
def engine(request: pytest.FixtureRequest, small: str) -> Iterator[Any]:
    """An engine with room for everything."""
    from engines.vllm.driver import start, stop

    started = start(small, asynchronous=request.param)
    yield started
    stop(started)


@pytest.fixture(scope="session", params=[False, True], ids=["sync", "async"])
def tight(request: pytest.FixtureRequest, small: str) -> Iterator[Any]:
    """An engine that chunks every prompt and preempts, 9 blocks of 32 tokens, 16 tokens per step; with room for LoRA.

    One more place than the tests' three adapters: on a CPU, vLLM gives a row without an adapter the last one when all
    places are full.
    """
    from engines import adapters
    from engines.vllm.driver import start, stop

    started = start(
        small,
        asynchronous=request.param,
        max_model_len=160,
        max_num_seqs=8,
        max_num_batched_tokens=16,
        num_gpu_blocks_override=9,
        enable_lora=True,
        max_loras=4,
        max_lora_rank=adapters.RANK,
    )
    yield started
    stop(started)


@pytest.fixture(scope="session")
def server(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the small model that tells its prefix-cache hits."""
    with serve(small, tmp_path_factory.mktemp("server") / "log.txt", "--enable-prompt-tokens-details") as running:
        yield running
