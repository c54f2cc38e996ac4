"""The real model in one mixed batch: the answers of midstep-eager, token by token."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from engines import scenario
from engines.guided import is_guided
from engines.sglang.servers import Models, Server

import midstep


def ask(server: Server, model: str, case: scenario.Case) -> list[Any]:
    """Return the answers to one case."""
    body = {"input_ids": scenario.prompt_ids(model, case), "sampling_params": scenario.sglang_params(case)}
    answers = server.post("/generate", body).raise_for_status().json()
    return answers if isinstance(answers, list) else [answers]


def test_the_real_model_answers_as_midstep_eager(settled: Server, models: Models) -> None:
    """Alone, twice, in a chat, guided, with both methods, with overlap; the server's defaults change nothing."""
    cases = scenario.REAL_CASES
    own = models.answers(models.real, cases)
    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(partial(ask, settled, models.real), cases))
    for case, answers in zip(cases, found, strict=True):
        assert [tuple(a["output_ids"]) for a in answers] == [e.ids for e in own[case.name]], case.name
        stops = [midstep.report(answer).stop for answer in answers]
        wanted = [e.stop and e.stop["position"] for e in own[case.name]]
        assert [stop and stop.position for stop in stops] == wanted, case.name
        if is_guided(case):
            assert len(answers[0]["output_ids"]) == 40, case.name
