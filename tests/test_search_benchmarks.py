"""The benchmarks of searches: tasks, rewards, tables and picture by hand, and every use on an engine that adds."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from xml.etree import ElementTree

import accuracy
import hashed
import picture
import pytest
import results
import search
import searcher
import sums
import tables
from sums import RIGHT, WRONG, Sum

from midstep.searching import Call, Piece, Streaming, uniform

TASK = Sum("4 - 7 + 9", "6")
WELL = ["4 - 7 = -3", "-3 + 9 = 6", "Answer: 6"]


def test_a_sum_is_worked_out_a_line_at_a_time() -> None:
    """By hand; a prompt has others before it, each with its end."""
    assert TASK.lines == WELL
    assert sums.prompt(TASK, [Sum("1 + 1", "2")], "<end>") == "1 + 1 = ?\n1 + 1 = 2\nAnswer: 2<end>\n4 - 7 + 9 = ?\n"
    assert sums.right(TASK, "\n".join(WELL))
    assert sums.right(TASK, "nonsense\nAnswer: 6\n")
    assert not sums.right(TASK, "Answer: 6\n4 - 7 = -3")
    assert not sums.right(TASK, "Answer: 66")


def test_tasks_are_reasoning_gyms() -> None:
    """Their answers are what their lines come to; no two are alike; one seed, one list."""
    found = sums.generated(40, 3, 5)
    assert len({task.expression for task in found}) == 40
    assert all(task.lines[-1] == f"Answer: {task.answer}" for task in found)
    assert all(len(task.lines) == 3 for task in found)
    assert found == sums.generated(40, 3, 5)


def test_the_exact_reward_knows_each_step() -> None:
    """A step behind a wrong one is wrong; one under way is right as far as it has come, if that is said."""
    assert sums.exact(TASK, WELL) == [RIGHT] * 3
    assert sums.exact(TASK, ["4 - 7 = 3", *WELL[1:]]) == [WRONG] * 3
    assert sums.exact(TASK, [WELL[0], "-3 + 9 = 5"]) == [RIGHT, WRONG]
    assert sums.exact(TASK, [*WELL, "more"]) == [RIGHT] * 3 + [WRONG]
    assert sums.exact(TASK, [WELL[0], "-3 + 9"]) == [RIGHT, WRONG]
    assert sums.exact(TASK, [WELL[0], "-3 + 9"], begun=True) == [RIGHT, RIGHT]
    assert sums.exact(TASK, ["4 - ", WELL[1]], begun=True) == [WRONG, WRONG]


def test_the_noisy_reward_turns_a_share_round() -> None:
    """The same verdicts whenever it is asked, of a beginning too; about the share that it was told."""
    steps = [[f"4 - 7 = {i}", "-3 + 9 = 6"] for i in range(-500, 500)]
    found = [sums.noisy(TASK, one, 0.2) for one in steps]
    assert found == [sums.noisy(TASK, one, 0.2) for one in steps]
    assert all(sums.noisy(TASK, one[:1], 0.2) == scores[:1] for one, scores in zip(steps, found, strict=True))
    turned = [
        a != b
        for one, scores in zip(steps, found, strict=True)
        for a, b in zip(scores, sums.exact(TASK, one), strict=True)
    ]
    assert 0.17 < sum(turned) / len(turned) < 0.23
    assert sums.noisy(TASK, WELL, 0.0) == sums.exact(TASK, WELL)


END = 3


class Letters:
    """A token for each letter."""

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        return "".join(chr(token) for token in ids if token != END)

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


class Adder(Streaming):
    """Works sums out; a digit of a result is right with probability 0.7, drawn from the seed and the position."""

    def __init__(self, task: Sum) -> None:
        super().__init__(Letters())
        self.task = task

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        ids = list(call.ids)
        for _ in range(call.max_tokens):
            await asyncio.sleep(0)
            ids.append(self._next(ids, call))
            yield Piece((ids[-1],), (), "end" if ids[-1] == END else None)

    def _next(self, ids: Sequence[int], call: Call) -> int:
        lines = self.tokenizer.decode(ids).rpartition("?\n")[2].split("\n")
        wanted, said = self.task.lines[len(lines) - 1], lines[-1]
        if len(said) == len(wanted):
            return END if len(lines) == len(self.task.lines) else ord("\n")
        letter = wanted[len(said)]
        sure = call.sampling.get("temperature") == 0 or not letter.isdigit() or not ("=" in said or "Answer" in said)
        return ord(letter) if sure or uniform(call.seed, len(ids)) < 0.7 else ord("0") + (int(letter) + 1) % 10


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the script keeps, of 20 tasks on the engine that adds."""
    tasks = sums.generated(20, accuracy.TERMS, 5)

    async def run() -> list[dict[str, Any]]:
        prompts = [sums.prompt(task, [], "") for task in tasks]
        return [await accuracy.solve(Adder(task), task, prompts[i], i) for i, task in enumerate(tasks)]

    about = {"model": "letters", "runner": "none", "tasks": "sums"}
    machine = {"processor": "one", "cores": 2, "memory_gib": 24.0}
    head = {"date": "2026-11-21", "commit": "0" * 12, "machine": machine, "versions": {}, "configuration": about}
    return {**head, "measured": json.loads(json.dumps(asyncio.run(run())))}


def test_every_use_answers_every_task(kept: dict[str, Any]) -> None:
    """One sample is right in about half of all; more samples and the exact reward help, and cost."""
    rows = kept["measured"]
    assert all(set(row["uses"]) == {use.key for use in accuracy.uses()} for row in rows)
    right = {use.key: accuracy.counted(rows, use.key)[0] for use in accuracy.uses()}
    tokens = {use.key: accuracy.counted(rows, use.key)[1] for use in accuracy.uses()}
    assert right["greedy 1 none"] == 20
    assert 8 <= right["one sample 1 none"] <= 18
    assert right["best_of_n 16 exact"] >= 17
    for name in accuracy.searches(16):
        assert right[f"{name} 16 exact"] > right["one sample 1 none"], name
        assert tokens[f"{name} 4 exact"] < tokens[f"{name} 8 exact"] < tokens[f"{name} 16 exact"], name
        assert right[f"{name} 16 exact"] >= right[f"{name} 16 noisy"], name


def test_the_table_and_the_picture_say_what_was_found(kept: dict[str, Any]) -> None:
    """A cell for each search and width; a point for each, and its interval."""
    made = tables.searches(kept)
    rows = kept["measured"]
    right, engine, _ = accuracy.counted(rows, "rebase 8 noisy")
    share, low, high = results.wilson(right, 20)
    assert f"{share * 100:.1f} ({low * 100:.1f} to {high * 100:.1f}), {engine:.0f} |" in made
    assert made.count("| best_of_n |") == 2
    drawn = ElementTree.fromstring(picture.accuracy(kept))
    circles = [one for one in drawn if one.tag.endswith("circle")]
    assert len(circles) == len(accuracy.REWARDS) * (len(accuracy.WIDTHS) * 7 + 1)
    panel = picture.Panel(picture.LEFT, 1.0, 2.0)
    heights = {round(float(one.get("cy", "")), 1) for one in circles}
    assert round(panel.y(right / 20), 1) in heights
    assert "Not measured yet" in tables.searches(None)


def test_the_kept_picture_is_that_of_the_results() -> None:
    """`python benchmarks/tables.py` draws it."""
    for path, drawn in tables.pictures().items():
        assert path.read_text() == drawn


def test_a_paired_difference_has_its_interval() -> None:
    """By hand: of 100 pairs, 30 differ one way and 10 the other."""
    ours, theirs = [1] * 30 + [0] * 10 + [1] * 60, [0] * 30 + [1] * 10 + [1] * 60
    middle, low, high = results.paired(ours, theirs)
    assert middle == pytest.approx(0.2)
    assert high - middle == pytest.approx(middle - low) == pytest.approx(1.959964 * ((0.4 - 0.04) / 99) ** 0.5)


def test_ratios_are_of_turns_of_one_round() -> None:
    """midstep sends half and takes a fifth more time in each."""
    rows = []
    for plan, reward in search.CASES:
        for round_ in range(6):
            base = {"plan": plan, "reward": reward, "round": round_, "generated": 10 + round_}
            rows.append({**base, "by": "its_hub", "sent": 100 + round_, "computed": 10 + round_, "wall": 5.0 + round_})
            rows.append(
                {**base, "by": "endpoint", "sent": 50 + round_ / 2, "computed": 10 + round_, "wall": 6.0 + 1.2 * round_}
            )
    found = search.ratios(rows)
    assert len(found) == len(search.CASES)
    assert found["beam, free, endpoint"]["prompt_tokens_sent_ratio"] == pytest.approx((0.5, 0.5, 0.5))
    assert found["beam, free, endpoint"]["prompt_tokens_computed_ratio"] == pytest.approx((1.0, 1.0, 1.0))
    assert found["particle_filter, paced, endpoint"]["wall_ratio"] == pytest.approx((1.2, 1.2, 1.2))
    kept = {"date": "", "commit": "", "machine": {"processor": "one", "cores": 2, "memory_gib": 24.0}, "versions": {}}
    made = tables.its_hub({**kept, "configuration": search.about(), "ratios": found})
    assert "| beam, free | in the server, one request for a search | 0.500 (0.500 to 0.500) |" in made


def test_a_plan_has_the_orders_width_steps_and_lengths() -> None:
    """Its parameters are those of an installed search, and as many answers are under way as its-hub has."""
    from midstep.plugins import catalogue

    for name, _ in search.CASES:
        ((method, params),) = searcher.plan(search.order(name, "free", "?", 1)).items()
        kind: Any = catalogue().find(method)
        checked = kind.Params.model_validate(params)
        assert kind().width(checked) == search.WIDTH
        if name != "best_of_n":
            assert (checked.max_steps, checked.step_tokens) == (search.STEPS, search.STEP_TOKENS)


def test_a_reward_with_a_pace_reads_one_text_after_the_other() -> None:
    """Three texts asked about at once take three times its pace; the scores are those of the free one."""

    async def run(pace: float) -> tuple[float, list[list[float]]]:
        asked, begun = hashed.Asked(pace), time.perf_counter()
        found = await asyncio.gather(asked.ask(["a."]), asked.ask(["b.", "c."]))
        return time.perf_counter() - begun, found

    took, scores = asyncio.run(run(0.02))
    assert 0.06 <= took < 1
    assert scores == asyncio.run(run(0.0))[1]
    assert all(0.1 <= score <= 0.9 for some in scores for score in some)


def test_prompts_are_of_one_length_and_unlike() -> None:
    """About two hundred tokens."""
    made = search.prompts(20)
    assert len(set(made)) == 20
    assert all(100 <= len(one.split()) <= 220 for one in made)


def test_the_first_readme_says_what_a_search_in_one_request_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each search that the server ran; nothing where nothing was measured."""
    ratio = [0.012, 0.01, 0.014]
    found = dict.fromkeys(search.KEYS.values(), ratio)
    kept = {"search": {"ratios": {"beam, free, driver": found, "beam, free, endpoint": found}}, "accuracy": {}}
    monkeypatch.setattr(tables.results, "read", kept.get)
    made, picture_ = tables._short_searches()
    cell = "0.012 (0.010 to 0.014)"
    assert made.splitlines()[2:] == [f"| beam, free | {cell} | {cell} | {cell} |"]
    assert picture_.endswith("(benchmarks/results/accuracy.svg)")
    monkeypatch.setattr(tables.results, "read", lambda name: None)
    assert tables._short_searches() == []


INNER = """
import results, time
results.end_whole()
try:
    print("up", flush=True)
    time.sleep(60)
finally:
    print("ended", flush=True)
"""
OUTER = """
import os, sys, results
with results.child([sys.executable, "-c", sys.argv[1]], dict(os.environ)):
    pass
"""


def test_a_benchmark_that_is_ended_ends_what_it_started() -> None:
    """SIGTERM, as `timeout` sends it, reaches the process with the engine, which leaves in order."""
    shell = {**os.environ, "PYTHONPATH": str(results.HERE)}
    command = [sys.executable, "-c", OUTER, INNER]
    with subprocess.Popen(command, env=shell, stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "up\n"
        outer.terminate()
        assert outer.stdout.read() == "ended\n"
        assert outer.wait(30) == 128 + 15
