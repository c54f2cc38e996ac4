"""The benchmarks' tables are what their results say, and their scripts will not break on their first GPU."""

from pathlib import Path
from typing import Any

import clock
import conflicts
import engine_gpu
import engine_rehearsal
import facts
import gpu_tables
import pytest
import results
import steps_gpu
import tables
import tiles
from interpreter import INTERPRETED


@pytest.mark.parametrize("readme", tables.BLOCKS, ids=lambda path: str(path.relative_to(results.ROOT)))
def test_a_readmes_tables_are_those_of_the_results(readme: Path) -> None:
    """`python benchmarks/tables.py` writes them."""
    assert tables.standing(readme) == tables.BLOCKS[readme]()


def test_a_ratio_is_the_mean_of_the_pairs_with_its_interval() -> None:
    """Pairs of 1 and 4 have the mean 2; equal pairs have no spread."""
    middle, low, high = results.ratio([1, 4, 1, 4, 1, 4], [1, 1, 1, 1, 1, 1])
    assert middle == pytest.approx(2.0)
    assert low == pytest.approx(4 / high)
    assert low == pytest.approx(2.0 * 2.0 ** -(2.571 * (6 / 5) ** 0.5 / 6**0.5))
    assert results.ratio([2.0] * 6, [1.0] * 6) == pytest.approx((2.0, 2.0, 2.0))


def test_a_difference_is_the_mean_of_the_pairs_with_its_interval() -> None:
    """Differences of 1 and 3 have the mean 2; equal ones have no spread."""
    middle, low, high = results.difference([2, 4, 2, 4, 2, 4], [1, 1, 1, 1, 1, 1])
    assert middle == pytest.approx(2.0)
    assert high - middle == pytest.approx(middle - low) == pytest.approx(2.571 * (6 / 5) ** 0.5 / 6**0.5)
    assert results.difference([3.0] * 6, [1.0] * 6) == (2.0, 2.0, 2.0)


def test_a_share_has_wilsons_interval() -> None:
    """By hand for 1 of 2; never beyond 0 and 1; half of many is narrow."""
    share, low, high = results.wilson(1, 2)
    z2 = 1.959964**2
    half = 1.959964 * (1 / 8 + z2 / 16) ** 0.5 / (1 + z2 / 2)
    assert (share, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert results.wilson(0, 10)[1] == pytest.approx(0, abs=1e-12)
    assert results.wilson(10, 10)[2] == pytest.approx(1)
    assert results.wilson(500, 1000)[2] - 0.5 < 0.032


def test_a_prompt_says_otherwise_than_the_facts() -> None:
    """Each fact, three times, with another's object; the question alone does not tell it, the context does."""
    prompts = facts.prompts()
    assert len(prompts) >= 300
    assert len({(one.template, one.subject, one.relation) for one in prompts}) == len(prompts)
    for one in prompts:
        assert one.told != one.believed
        assert facts.verdict(one.context, one.told, "none of these") == "context"
        assert facts.verdict(one.question, one.told, one.believed) == "neither"
        assert (one.context + one.question).count(one.context) == 1


def test_an_answer_follows_what_it_names_first() -> None:
    """Whole words, in any case."""
    assert facts.verdict(" Rome, not Paris", "Rome", "Paris") == "context"
    assert facts.verdict(" paris. Rome", "Rome", "Paris") == "memory"
    assert facts.verdict(" Romeo", "Rome", "Paris") == "neither"


def test_the_table_of_triples_counts_rows() -> None:
    """A batch of triples that takes as long as three times the rows: 3; half as long again as its own: 1.5."""
    row = {"guided": 4, "triple_wall": 3.0, "thrice_wall": 3.0, "dressed_wall": 4.5, "plain_wall": 2.0}
    made = tables.triples(rehearsed() | {"measured": [row] * 6}, "vllm")
    assert "| 4 | 3.000 (3.000 to 3.000) | 2.000 (2.000 to 2.000) | 1.500 (1.500 to 1.500) |" in made


def test_the_table_of_neighbours_compares_speeds() -> None:
    """Who takes a quarter longer has 0.8 of the speed; each mix has its line."""
    row = {"neighbours": 4, "guided": 4, "plain_seconds": 2.0, "guided_seconds": 2.5}
    other = {**row, "neighbours": 8, "guided_seconds": 2.0}
    made = tables.neighbours(rehearsed() | {"measured": [row] * 6 + [other] * 6}, "sglang")
    assert "| 4 | 4 | 0.800 (0.800 to 0.800) |" in made
    assert "| 8 | 4 | 1.000 (1.000 to 1.000) |" in made


def test_the_table_of_conflicts_counts_answers() -> None:
    """Two prompts, one of them known: a share of each kind."""
    row = {"template": "stated", "told": "Rome", "believed": "Paris"}
    answers = {conflicts.ALONE: "Paris", "unguided": "Paris", "cad": "Rome"}
    other = {**row, "answers": {conflicts.ALONE: "Bonn", "unguided": "Rome", "cad": "Bonn"}}
    kept = rehearsed() | {"measured": [{**row, "answers": answers}, other]}
    kept["configuration"] = {"model": "one", "runner": "V1", "tokens": 8, "uses": dict.fromkeys(answers)}
    made = tables.knowledge(kept)
    assert "tells 1 of them right" in made
    assert "| unguided | 50.0 (9.5 to 90.5) | 50.0 (9.5 to 90.5) | 0.0 (0.0 to 65.8) | 0.0 (0.0 to 79.3) |" in made
    assert "| cad | 50.0 (9.5 to 90.5) | 0.0 (0.0 to 65.8) | 50.0 (9.5 to 90.5) | 100.0 (20.7 to 100.0) |" in made


def rehearsed() -> dict[str, Any]:
    """Return what a rehearsal keeps."""
    row = {"use": "min_p", "plain_milliseconds": 2.5, "milliseconds": 3.75}
    return {
        "date": "2026-11-21",
        "commit": "0" * 12,
        "machine": {"processor": "one", "cores": 2, "memory_gib": 24.0},
        "versions": {"vllm": "0.32.0"},
        "configuration": {
            "what": engine_rehearsal.WHAT,
            "requests": 64,
            "compilation": "NONE",
            "graphs": "FULL",
            "refused": {"dry": "no tokenizer"},
        },
        "measured": [row] * 6,
    }


def test_a_rehearsals_table_says_that_it_is_no_gpus() -> None:
    """Above the numbers, the host's microseconds: plain, with a method, and the difference."""
    head, _, table = tables.engine_rehearsal(rehearsed()).partition("| host's µs")
    assert "without a GPU; no kernel runs; not a GPU figure" in head
    assert "| min_p | 2500 | 3750 | 1250 (1250 to 1250) |" in table
    assert "dry was refused: no tokenizer" in table
    assert "2500" not in tables.engine_gpu(None)


SCRIPTS = [engine_gpu, engine_rehearsal, steps_gpu, tiles]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_nothing_is_kept_without_a_device(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither script starts an engine where neither a GPU nor a stand-in is."""
    monkeypatch.setattr("sys.argv", ["script"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    script.main()
    assert "nothing is published" in capsys.readouterr().out


def test_a_device_that_fills_no_tensor_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured under a stand-in driver is never kept as a GPU's."""
    import torch

    full = torch.full
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.full", lambda shape, value, device: torch.zeros(shape))
    assert not results.gpu()
    monkeypatch.setattr("torch.full", lambda shape, value, device: full(shape, value))
    assert results.gpu()


def test_a_record_that_no_kernel_wrote_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in its memory, under a stand-in driver no request ends by it."""
    import torch

    from midstep import Admission, Sampling
    from midstep.record import FIELDS, Record

    monkeypatch.setattr(Record, "events", Record.events)
    engine_rehearsal.say_nothing()
    with torch.inference_mode():
        values = torch.full((1, len(FIELDS)), 7.0)
    assert Record((Admission((), Sampling()),), (), values).events() == []


def test_a_clock_leaves_out_what_is_called_of_others(tmp_path: Path) -> None:
    """What a function calls that has a clock or a pause of its own is not its own time."""
    watch = clock.Clock(str(tmp_path))

    def wait(milliseconds: int) -> None:
        end = clock.perf_counter_ns() + milliseconds * 1_000_000
        while clock.perf_counter_ns() < end:
            pass

    inner = watch.timed(lambda: wait(4), "pipeline")
    engine = watch.paused(lambda: wait(40), "adapter")

    def outer() -> None:
        wait(2)
        inner()
        engine()

    watch.timed(outer, "adapter")()
    found = clock.totals(str(tmp_path))
    assert 2e6 <= found["adapter"][0] < 20e6
    assert 4e6 <= found["pipeline"][0] < 22e6
    assert [counts[1:] for counts in found.values()] == [(1, 1), (1, 0), (0, 0), (0, 0)]


@pytest.mark.kernel
@pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is off; TRITON_INTERPRET=1 turns it on")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_case_of_the_kernels_benchmark_is_as_its_definition(dtype: str) -> None:
    """Each is called once, at 3 x 1000."""
    import cases
    import kernels

    rows, vocabulary = kernels.SMOKE
    for name, make in cases.cases().items():
        logits = cases.logits(rows, vocabulary, kernels.TYPES[dtype], "cpu", 1)
        kernels.check(name, make(rows, vocabulary, "cpu"), logits)


def test_a_wrong_kernel_is_not_timed() -> None:
    """A mask, a number and an id that are not the definition's are each found."""
    import torch
    from cases import unlike

    mask = torch.zeros(2, 100, dtype=torch.bool)
    assert unlike(mask, mask) is None
    assert unlike(~mask, mask) == "100 tokens of a row's mask differ"
    assert unlike(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1])) is not None
    assert unlike((torch.tensor([1]), torch.tensor([2.0])), (torch.tensor([2]), torch.tensor([2.0]))) is not None


def test_the_methods_readmes_say_what_was_measured() -> None:
    """Each method with a kernel tells its time on a GPU, from the results and nowhere else."""
    sentences = gpu_tables.of_methods()
    assert sentences, "no result of kernels.py"
    for folder, sentence in sentences.items():
        said = " ".join((results.ROOT / folder / "README.md").read_text().split())
        assert sentence in said, folder


def test_a_trace_is_read_by_steps() -> None:
    """Two steps: what overlaps counts once, what a graph launched is not beside it."""
    of_graph, alone = {"correlation": 1}, {"correlation": 2}
    events = [
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 0, "dur": 5, "args": of_graph},
        {"ph": "X", "cat": "kernel", "name": "in the graph", "ts": 10, "dur": 30, "args": of_graph},
        {"ph": "X", "cat": "kernel", "name": "beside", "ts": 35, "dur": 10, "args": alone},
        {"ph": "X", "cat": "kernel", "name": "beside", "ts": 60, "dur": 4, "args": alone},
        {"ph": "M", "name": "process_name"},
    ]
    assert steps_gpu.read(events, 2) == {"busy": 19.5, "outside": {"beside": [1.0, 7.0]}}
