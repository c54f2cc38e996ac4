"""An installed midstep never stops an engine from starting; where it cannot serve, it says so and refuses."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.vllm import driver
from engines.vllm.crowd import prompt, sampling

import midstep

once = pytest.mark.skipif(driver.V2, reason="about the engine's start: the same for both runners, and seen on V1")
SURE = midstep.request(deepconf={"threshold": 4.5, "window": 3})


def refused(engine: Any, params: Any) -> str:
    """Return the text with which a request is refused; a plain one must be answered."""
    assert len(driver.run(engine, [("plain", prompt(8, 1), sampling(1, None))])["plain"][0].ids) == 20
    with pytest.raises(ValueError) as caught:
        driver.run(engine, [("bad", prompt(8, 1), params)])
    return str(caught.value)


@once
def test_what_is_switched_on_is_said_once(small: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line: what is on, why, and how to undo it; both halves are in the configuration, though nobody named them."""
    from vllm import EngineArgs

    with caplog.at_level(logging.INFO, "vllm.midstep"):
        config = EngineArgs(model=small).create_engine_config()
    lines = [record.getMessage() for record in caplog.records if "midstep" in record.getMessage()]
    assert len(lines) == 1
    assert "is on" in lines[0]
    assert "MIDSTEP=off" in lines[0]
    assert config.model_config.logits_processors == ["midstep_vllm:LogitsProcessor"]
    assert config.scheduler_config.scheduler_cls == "midstep_vllm.Scheduler"


@once
def test_a_pooling_model(small: str) -> None:
    """An embedding server starts and embeds; nothing of midstep is in it."""
    from vllm import LLM

    engine = LLM(model=small, **{**driver.USUAL, "max_num_seqs": 4}, runner="pooling", convert="embed")
    try:
        config = engine.llm_engine.vllm_config
        assert not config.model_config.logits_processors
        assert config.scheduler_config.scheduler_cls is None
        assert len(engine.embed(["hello"], use_tqdm=False)[0].outputs.embedding) == 576
    finally:
        driver.stop(engine)


@once
def test_speculative_decoding() -> None:
    """V1 with n-gram speculation starts and answers; a request that names a method is refused."""
    # in a process of its own: it imports numba, after which vLLM for CPU cannot start a second engine in a process
    program = [sys.executable, "-m", "engines.vllm.speculation"]
    tests = Path(__file__).parents[2]
    done = subprocess.run(program, cwd=tests, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "answered 20 tokens" in done.stdout
    assert "refused: midstep: deepconf: it is not served under speculative decoding" in done.stdout


@pytest.fixture(
    scope="module",
    params=["vllm.v1.core.sched.scheduler.Scheduler", "vllm.v1.core.sched.async_scheduler.AsyncScheduler"],
)
def named(request: pytest.FixtureRequest, small: str) -> Iterator[tuple[str, Any]]:
    """Return a scheduler of vLLM's own that the user named, and an engine with it."""
    engine = driver.start(small, asynchronous="async" in request.param, scheduler_cls=request.param)
    yield request.param, engine
    driver.stop(engine)


@once
def test_a_scheduler_that_the_user_named(named: tuple[str, Any]) -> None:
    """It stays; samplers work as before, a stop ends by the end token, and is refused where there is none."""
    name, engine = named
    assert engine.llm_engine.vllm_config.scheduler_config.scheduler_cls == name
    assert "end token" in refused(engine, sampling(1, SURE))
    own = sampling(1, SURE, ignore_eos=False, stop_token_ids=[41], max_tokens=60)
    found = driver.run(engine, [("stop", prompt(8, 1), own), ("keep", prompt(8, 2), sampling(2))])
    assert found["stop"][0].finish_reason == "stop"
    assert len(found["stop"][0].ids) < 60
    from vllm.sampling_params import StructuredOutputsParams

    grammar = StructuredOutputsParams(regex="[a-z]{30}")
    assert "grammar" in refused(engine, sampling(1, SURE, structured_outputs=grammar, ignore_eos=False))


@once
def test_companions_without_the_scheduler_half(named: tuple[str, Any]) -> None:
    """Nobody would make them: refused, with the flag that is there and the one that is missing; the engine lives."""
    scheduler, engine = named
    for methods in (
        {"cfg": {"negative": prompt(6, 80)}},
        {"m3id": {"instead": prompt(6, 80)}},
        {"nudging": {"nudger": "base", "prompt": prompt(6, 80)}},
    ):
        (name,) = methods
        text = refused(engine, sampling(extra=midstep.request(**methods)))
        assert text.startswith(f"midstep: {name}: it needs companions, which --scheduler-cls {scheduler} does not make")
        assert text.endswith("; start with --scheduler-cls midstep_vllm.Scheduler")
    found = driver.run(engine, [(f"{i}", prompt(8, i), sampling(i)) for i in range(3)])
    assert [len(found[f"{i}"][0].ids) for i in range(3)] == [20] * 3
    assert driver.held(engine) == (0, 0)


@once
def test_a_vllm_without_a_name_that_midstep_needs(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names what is missing; the server serves, and methods are refused with that reason."""
    monkeypatch.setattr("midstep_vllm.seams.USED", ("vllm.v1.outputs:GoneOutput",))
    engine = driver.start(small)
    try:
        text = refused(engine, sampling(1, SURE))
        assert "GoneOutput" in text
        assert "tested with vLLM 0.32.0" in text
    finally:
        driver.stop(engine)


@once
def test_a_configuration_that_cannot_be_read(small: str, tmp_path: Any) -> None:
    """The server serves; methods are refused, and the text says what is wrong in which file."""
    settings = tmp_path / "midstep.toml"
    settings.write_text("[limits]\ncolour = 3\n")
    engine = driver.start(small, additional_config={"midstep": str(settings)})
    try:
        text = refused(engine, sampling(1, SURE))
        assert str(settings) in text
        assert "colour" in text
    finally:
        driver.stop(engine)


def test_the_v2_runner_really_ran(engine: Any) -> None:
    """Which runner drew the tokens is not taken from a setting, but from the runner itself."""
    core = engine.llm_engine.engine_core.engine_core
    runner = core.model_executor.driver_worker.worker.model_runner
    expected = "vllm.v1.worker.gpu.model_runner" if driver.V2 else "vllm.v1.worker.gpu_model_runner"
    assert expected in [cls.__module__ for cls in type(runner).__mro__]
    from midstep_vllm.rows import V1Rows, V2Rows

    processors = runner.sampler.logits_processors if driver.V2 else runner.input_batch.logitsprocs.all
    mine = [p for p in processors if type(p).__module__ == "midstep_vllm.processor"]
    assert [type(p.rows) for p in mine] == [V2Rows if driver.V2 else V1Rows]
