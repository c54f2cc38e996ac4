"""Drives vLLM's engine by hand: many requests at once, step by step."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from engines import scenario
from engines.vllm import interpreted

import midstep

V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"
RUNNER = "vLLM V2" if V2 else "vLLM V1"  # a column of the matrix
USUAL: Mapping[str, Any] = MappingProxyType(
    {
        "max_model_len": 512,
        "max_num_seqs": 16,
        "block_size": 32,
        "num_gpu_blocks_override": 512,
        "dtype": "float32",
        "enforce_eager": True,
        "gpu_memory_utilization": 0.3,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
)


@dataclass
class Sample:
    """What a client collected of one sample."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: list[Any] = field(default_factory=list)
    prompt_logprobs: Any = None
    report: midstep.Report | None = None


@contextmanager
def forced_async(on: bool) -> Iterator[None]:
    """Turn async scheduling on, which vLLM's CPU platform turns off and every GPU has."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.__dict__["check_and_update_config"]

    def checked(cls: Any, config: Any) -> None:
        original.__func__(cls, config)
        config.scheduler_config.async_scheduling = on

    CpuPlatform.check_and_update_config = classmethod(checked)
    try:
        yield
    finally:
        CpuPlatform.check_and_update_config = original


def start(model: str, *, asynchronous: bool = False, **options: Any) -> Any:
    """Start an engine in this process."""
    from vllm import LLM

    if V2:
        interpreted.mend()

    with forced_async(asynchronous):
        engine = LLM(model=model, **{**USUAL, **options})
    config = engine.llm_engine.vllm_config
    assert config.scheduler_config.async_scheduling is asynchronous
    assert config.use_v2_model_runner is V2
    return engine


def stop(engine: Any) -> None:
    """Stop an engine and give back its memory."""
    engine.llm_engine.engine_core.shutdown()
    del engine
    gc.collect()


def params(case: scenario.Case, **more: Any) -> Any:
    """Return a case as SamplingParams."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    kind = RequestOutputKind.DELTA if case.stream else RequestOutputKind.FINAL_ONLY
    grammar = {"structured_outputs": StructuredOutputsParams(regex=case.regex)} if case.regex else {}
    return SamplingParams(**{**scenario.vllm_params(case), **grammar, "output_kind": kind, **more})


def run(
    engine: Any,
    requests: Sequence[tuple[str, Sequence[int], Any]],
    between: Callable[[int], None] = lambda step: None,
) -> dict[str, list[Sample]]:
    """Run requests (name, prompt, SamplingParams) together; `between` is called after each step with its number."""
    core = engine.llm_engine
    for name, prompt, sampling in requests:
        core.add_request(name, {"prompt_token_ids": list(prompt), "type": "token"}, sampling)
    found = {name: [Sample() for _ in range(sampling.n)] for name, _, sampling in requests}
    step = 0
    while core.has_unfinished_requests():
        for output in core.step():
            collect(found[output.request_id], output)
        step += 1
        between(step)
    return found


def collect(samples: Sequence[Sample], output: Any) -> None:
    """Add one RequestOutput to what its client has so far."""
    for completion in output.outputs:
        sample = samples[completion.index]
        sample.ids += list(completion.token_ids)
        sample.text += completion.text
        sample.logprobs += completion.logprobs or []
        sample.finish_reason = completion.finish_reason or sample.finish_reason
        sample.stop_reason = completion.stop_reason or sample.stop_reason
    for index, sample in enumerate(samples):
        sample.prompt_logprobs = output.prompt_logprobs or sample.prompt_logprobs
        sample.report = midstep.report(output, index) or sample.report


@contextmanager
def preemptions(engine: Any) -> Iterator[list[str]]:
    """Yield the ids of the requests that are preempted meanwhile, in their order."""
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    original, preempted = scheduler._preempt_request, list[str]()

    def preempt(request: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(request.request_id)
        return original(request, *args, **kwargs)

    scheduler._preempt_request = preempt
    try:
        yield preempted
    finally:
        del scheduler._preempt_request


def held(engine: Any) -> tuple[int, int]:
    """Return the requests that the scheduler knows, and the KV blocks in use, cached ones left out."""
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    pool = scheduler.kv_cache_manager.block_pool
    return len(scheduler.requests), pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()


def as_expected(sample: Sample) -> scenario.Expected:
    """Return a sample in the words of the scenario."""
    report = sample.report
    return scenario.Expected(
        tuple(sample.ids),
        sample.text,
        str(sample.finish_reason),
        None if sample.stop_reason is None else str(sample.stop_reason),
        report.stop.model_dump() if report and report.stop else None,
        {name: method.changed for name, method in report.methods.items()} if report else {},
    )


def differences(
    found: Mapping[str, Sequence[Sample]], expected: Mapping[str, Sequence[scenario.Expected]]
) -> dict[str, Any]:
    """Return what differs, by request; the compared numbers of a stop may differ in their last digits."""
    wrong = {}
    for name, samples in found.items():
        mine = [plain(as_expected(sample)) for sample in samples]
        theirs = [plain(answer) for answer in expected[name]]
        if mine != theirs:
            wrong[name] = mine, theirs
    return wrong


def plain(answer: scenario.Expected) -> dict[str, Any]:
    """Return an answer as plain data, the stop's measured value to three digits."""
    stop = dict(answer.stop) if answer.stop else None
    if stop is not None:
        stop["value"] = round(stop["value"], 3)
    return {**vars(answer), "ids": tuple(answer.ids), "stop": stop, "changed": dict(answer.changed)}
