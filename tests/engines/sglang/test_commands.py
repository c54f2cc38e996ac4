"""`midstep try` and `midstep trace`, and the examples, at the engines that are running anyway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engines import examples, trying
from engines.sglang.servers import Models, Server

import midstep


def test_try_and_trace(server: Server, tmp_path: Path) -> None:
    """A person at a terminal sees the answers that a client gets, whole and streamed, and the trace of one."""

    def asked(body: Any, entry: Any) -> Any:
        return server.post("/v1/completions", {"model": "m", **body, "custom_params": entry}).json()

    trying.check(server.url, tmp_path, asked)


def test_the_examples_of_clients(server: Server) -> None:
    """OpenAI's client, curl, and a program."""
    assert examples.run("openai_client.py", server.url).count("tokens changed by min_p") == 2
    answer = json.loads(examples.run("curl.sh", server.url, "sglang"))
    assert list(midstep.report(answer).methods) == ["deepconf", "min_p"]


def test_the_example_of_a_program(server: Server, models: Models) -> None:
    """Each fork has the report of its own methods."""
    said = examples.run("sglang_program.py", server.url)
    assert "{'top_nsigma': " in said
    assert "{'xtc': " in said


def test_the_example_of_a_search_in_a_program(server: Server) -> None:
    """Each fork's search has its own result, with a score and what it spent."""
    said = examples.run("sglang_search.py", server.url).splitlines()
    results = [line.split(" ", 2) for line in said[:2]]
    assert all(0 < float(score) <= 1 and int(tokens) > 24 for score, tokens, _ in results)
    assert results[0][2] != results[1][2]


def test_the_example_in_this_process(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints two samples with their reports."""
    examples.load("sglang_offline").main(engine)
    assert capsys.readouterr().out.count("tokens changed by min_p; ") == 2
