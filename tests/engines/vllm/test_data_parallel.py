"""Two ranks of one server, each with a scheduler of its own: a request and its companions stay on one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engines import guided, scenario
from engines.kept import Answers
from engines.vllm import driver
from engines.vllm.server import NAME, Server, serve

RANKS = 2
CASES = tuple(case for case in guided.CASES if case.name in ("ids, greedy", "ids, sampled", "two companions", "m3id"))


@pytest.fixture(scope="module")
def server(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two ranks."""
    log = tmp_path_factory.mktemp("ranks") / "log.txt"
    with serve(small, log, "--data-parallel-size", str(RANKS), "--api-server-count", "1") as running:
        yield running


def finished(server: Server) -> dict[int, int]:
    """Return how many answers each rank has given."""
    _, text = server.call("/metrics")
    found: dict[int, int] = {}
    for rank, count in re.findall(r'^vllm:request_success_total\{engine="(\d+)".*?\} ([\d.e+]+)$', text, re.MULTILINE):
        found[int(rank)] = found.get(int(rank), 0) + int(float(count))
    return found


@pytest.mark.long
@pytest.mark.skipif(driver.V2, reason="about processes: the same for both runners")
def test_a_group_stays_on_one_rank(server: Server, small: str) -> None:
    """Guided requests sent to either rank, and to whichever is free: the ids of midstep-eager."""
    answers = Answers(small, guided.CASES)

    def ask(asked: tuple[scenario.Case, int | None]) -> list[int]:
        case, rank = asked
        headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
        body = {**scenario.http_body(case, "vllm", NAME), "prompt": scenario.prompt_ids(small, case)}
        status, text = server.call("/v1/completions", {**body, "return_token_ids": True, "stream": False}, headers)
        assert status == 200, text
        return list(json.loads(text)["choices"][0]["token_ids"])

    asked: list[tuple[scenario.Case, Any]] = [(case, rank) for case in CASES for rank in (*range(RANKS), None)]
    with ThreadPoolExecutor(len(asked)) as threads:
        found = list(threads.map(ask, asked))
    assert [(case.name, ids) for (case, _), ids in zip(asked, found, strict=True)] == [
        (case.name, list(answers[case.name][0].ids)) for case, _ in asked
    ]
    done = finished(server)
    assert set(done) == set(range(RANKS))
    assert min(done.values()) >= len(CASES), done
