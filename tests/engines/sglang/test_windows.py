"""Guided requests on a model of which every second layer sees a window of the last tokens; where they are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from engines import windows
from engines.guided import CASES
from engines.sglang.asking import generate, wrong
from engines.sglang.servers import NOTHING, Models, serve, worked_out

from midstep_sglang import fitting

NAMES = ("ids, greedy", "ids, sampled", "a longer companion", "two companions", "m3id", "a plain neighbour")
ASKED = tuple(case for case in CASES if case.name in NAMES)
MAKE = "import sys; from engines import windows; windows.make(*sys.argv[1:])"


@pytest.mark.long
def test_what_a_window_hides_is_hidden_from_companions_too(models: Models, tmp_path: Path) -> None:
    """Chunked and retracted, twice, so that prefixes are cached: midstep-eager's answers."""
    model = str(tmp_path / "model")
    worked_out("-c", MAKE, windows.KINDS[1], models.small, model)
    expected = {case.name: models.work_out(model, case) for case in ASKED}

    async def everything(url: str) -> list[list[Any]]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            return await asyncio.gather(*(generate(client, model, case) for case in ASKED))

    retractions = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"}
    with serve(model, tmp_path, environment=retractions, chunked_prefill_size=32) as server:
        for _ in range(2):
            differences = wrong(ASKED, asyncio.run(everything(server.url)), expected)
            assert not differences, "\n".join(differences)
        assert server.idle() == NOTHING


def test_a_model_with_a_cache_of_its_own_for_windows_is_refused() -> None:
    """Where SGLang keeps other state than keys and values of all tokens, with the reason."""
    scheduler = SimpleNamespace(**{**dict.fromkeys(fitting.OF_SCHEDULER), "is_hybrid_swa": True})
    request = SimpleNamespace(origin_input_ids=[5, 6], to_finish=None)
    said = fitting.fit(scheduler, [request, request])
    assert said is not None
    assert "other state than keys and values" in said
