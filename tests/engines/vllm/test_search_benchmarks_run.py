"""The benchmarks of searches run on a real engine: a few tasks, and one prompt beside its-hub."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import results
from engines.vllm import driver

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(driver.V2, reason="about scripts that start their own engine: the run with V1 shows it"),
]


def said(script: str, *arguments: str) -> list[str]:
    """Return what a script says, without the time before each line."""
    command = [sys.executable, str(results.HERE / script), *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, check=True)
    return [line.partition(" ")[2] for line in run.stdout.splitlines()]


def test_every_search_solves_tasks() -> None:
    """A line for each use; the oracle's best of 16 is right at least where one sample is."""
    lines = dict(line.partition(": ")[::2] for line in said("accuracy.py", "--tasks", "4"))
    right = {use: int(line.split()[0]) for use, line in lines.items() if " of 4, " in line}
    assert len(right) == 2 + 3 * (1 + 2 * 6)
    assert right["best_of_n 16 exact"] >= right["one sample 1 none"]


def test_both_sides_do_the_same_work() -> None:
    """its-hub and midstep make the same tokens but in a beam search's first round; midstep sends fewer."""
    lines = [json.loads(line) for line in said("search.py", "--small") if line.startswith("{")]
    rows = {(row["plan"], row["reward"], row["by"]): row for row in lines}
    for (plan, reward, by), row in rows.items():
        theirs = rows[plan, reward, "its_hub"]
        apart = 12 * 24 if plan == "beam" and by != "its_hub" else 0
        assert row["generated"] == theirs["generated"] + apart, (plan, by)
        if by == "endpoint":
            assert row["sent"] < 0.4 * theirs["sent"]
