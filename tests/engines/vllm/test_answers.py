"""The same requests have the same answers as in midstep-eager, whatever vLLM does with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engines import matrix, scenario
from engines.guided import is_guided
from engines.vllm import driver


def requests(model: str, cases: Any = scenario.CASES) -> list[tuple[str, list[int], Any]]:
    """Return the scenario's requests."""
    return [(case.name, scenario.prompt_ids(model, case), driver.params(case)) for case in cases]


def test_the_whole_scenario_has_eagers_answers(engine: Any, small: str) -> None:
    """All cases in one mixed batch, some admitted late: ids, text, reasons, stops and changed tokens are equal."""
    found = driver.run(engine, requests(small))
    assert driver.differences(found, scenario.expected(small)) == {}
    matrix.record(driver.RUNNER, "streaming", "works")


def test_the_real_model_has_eagers_answers(real: str) -> None:
    """One mixed batch of the model with its whole vocabulary, guided requests of 40 tokens among plain ones.

    On V2, in the interpreter, their first tokens: a step of 49,152 tokens takes seconds there.
    """
    most = 10 if driver.V2 else 40
    cases = tuple(replace(case, max_tokens=min(most, case.max_tokens)) for case in scenario.REAL_CASES)
    engine = driver.start(real, asynchronous=True, max_model_len=256)
    try:
        found = driver.run(engine, requests(real, cases))
    finally:
        driver.stop(engine)
    assert driver.differences(found, scenario.expected(real, cases)) == {}
    assert [len(found[case.name][0].ids) for case in cases if is_guided(case)] == [most] * 3
