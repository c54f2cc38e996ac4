"""Models whose layers see a window of the last tokens: guided requests are refused there, others served."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import scenario, windows
from engines.guided import CASES
from engines.vllm import driver

PLAIN = tuple(case for case in (*CASES, *scenario.CASES) if case.name in ("a plain neighbour", "min_p sampled"))


@pytest.mark.parametrize("kind", windows.KINDS)
def test_a_guided_request_is_refused_and_others_are_served(small: str, tmp_path: Path, kind: str) -> None:
    """A cached prefix may lack what a member's window holds, and a group may outgrow caches of several kinds."""
    model = windows.make(kind, small, tmp_path / "model")
    engine = driver.start(model, asynchronous=True)
    try:
        case = CASES[0]
        with pytest.raises(ValueError, match="layers that see a window of the last tokens"):
            driver.run(engine, [(case.name, scenario.prompt_ids(model, case), driver.params(case))])
        requests = [(case.name, scenario.prompt_ids(model, case), driver.params(case)) for case in PLAIN]
        assert driver.differences(driver.run(engine, requests), windows.answers(model, PLAIN)) == {}
        assert driver.held(engine) == (0, 0)
    finally:
        driver.stop(engine)
