"""midstep's counters at a server's `/metrics`."""

from __future__ import annotations

from typing import Any

import httpx
from engines import operating
from engines.sglang.servers import Models, Server

import midstep

USUAL = {"max_new_tokens": 12, "ignore_eos": True, "temperature": 1.2}


def test_metrics_count_what_the_reports_say(server: Server, models: Models) -> None:
    """n = 2, a stop, a fault: /metrics grows by exactly the numbers of the reports."""
    asked: list[dict[str, Any]] = [
        {"n": 2, "sampling_seed": 1, "custom_params": midstep.request(min_p={"p": 0.2})},
        {"sampling_seed": 2, "custom_params": midstep.request(min_p={}, deepconf={"threshold": 100.0, "window": 3})},
        {"sampling_seed": 3, "custom_params": midstep.request(faulty={"how": "nan"}, on_error="continue")},
        {"sampling_seed": 5, "custom_params": midstep.request(step_reward={"reward": "judged", "separator": "e"})},
        {},
    ]
    reports: list[midstep.Report] = []

    def ask_all() -> None:
        for own in asked:
            answer = server.post("/generate", {"text": "Once upon a time", "sampling_params": {**USUAL, **own}}).json()
            answers = answer if isinstance(answer, list) else [answer]
            reports.extend(filter(None, map(midstep.report, answers)))

    found = operating.grown(lambda: _read(server), ask_all)
    assert [list(report.methods) for report in reports] == [
        ["min_p"],
        ["min_p"],
        ["deepconf", "min_p"],
        ["faulty"],
        ["step_reward"],
    ]
    assert reports[2].stop is not None
    assert reports[3].faults[0].count > 1
    assert reports[4].steps
    assert operating.counters(found) == operating.counted(reports, models.small)


def test_metrics_tell_the_time_of_each_step(server: Server, models: Models) -> None:
    """A request of 9 tokens, alone, is 9 steps with midstep's rows, and one that runs ahead; without methods, none."""

    def ask(**own: Any) -> Any:
        return server.post("/generate", {"text": "Once", "sampling_params": {**USUAL, "max_new_tokens": 9, **own}})

    ask()  # what an earlier request ran ahead is over
    found = operating.grown(lambda: _read(server), lambda: ask(custom_params=midstep.request(min_p={})))
    count, seconds = operating.steps(found, models.small)
    assert 9 <= count <= 10
    assert 0 < seconds < 9
    ask()
    assert operating.grown(lambda: _read(server), ask) == {}


def _read(server: Server) -> str:
    return httpx.get(server.url + "/metrics", timeout=60).text
