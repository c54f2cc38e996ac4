"""Nothing stays behind: slots, admissions and KV blocks are free again, however requests end."""

from __future__ import annotations

from typing import Any

import pytest
from engines.vllm import driver
from engines.vllm.crowd import SURE, prompt, sampling

import midstep


def inside(engine: Any) -> tuple[Any, Any, Any]:
    """Return the scheduler, the worker's wrapper and midstep's processor."""
    core = engine.llm_engine.engine_core.engine_core
    wrapper = core.model_executor.driver_worker
    runner = wrapper.worker.model_runner
    processors = runner.sampler.logits_processors if driver.V2 else runner.input_batch.logitsprocs.all
    return core.scheduler, wrapper, next(p for p in processors if type(p).__module__ == "midstep_vllm.processor")


def many(engine: Any, count: int) -> int:
    """Answer `count` short requests, some aborted, some stopped; return the peak of slots."""
    core, (_, _, processor) = engine.llm_engine, inside(engine)
    asked, peak, done = 0, 0, 0
    early = midstep.request(deepconf={"threshold": 9.0, "window": 2})
    while done < count:
        while asked < count and asked - done < 40:
            extra = (SURE, early, None)[asked % 3]
            own = sampling(asked, extra, max_tokens=3 + asked % 3, detokenize=False)
            core.add_request(str(asked), {"prompt_token_ids": prompt(3 + asked % 6, asked), "type": "token"}, own)
            asked += 1
        finished = [output.request_id for output in core.step() if output.finished]
        done += len(finished)
        peak = max(peak, len(processor.pipeline.slots))
        if asked < count and asked % 10 == 0 and core.output_processor.request_states:
            victim = next(reversed(core.output_processor.request_states.values()))
            core.abort_request([victim.external_req_id])
            done += 1
    return peak


def check(engine: Any, count: int) -> None:
    """Answer `count` requests; check that nothing stays behind, and that the table is as large as the batch needs."""
    scheduler, wrapper, processor = inside(engine)
    blocks = scheduler.kv_cache_manager.block_pool
    peak = many(engine, count)
    driver.run(engine, [("last", prompt(4, 1), sampling(1, None, max_tokens=2))])
    assert len(processor.pipeline.slots) == 0
    assert processor.pipeline.slots.capacity <= 64
    assert processor.rows.keys() == []
    assert wrapper.midstep.admissions == {}
    assert wrapper.midstep.told == []
    assert scheduler._told == {}
    assert blocks.get_num_free_blocks() == blocks.num_gpu_blocks - 1
    assert engine.llm_engine.output_processor.request_states == {}
    assert 8 <= peak <= 33


def test_slots_are_freed(engine: Any) -> None:
    """Some hundred requests, ended in every way, leave the engine as it was."""
    check(engine, 60 if driver.V2 else 300)


@pytest.mark.long
def test_ten_thousand_requests(engine: Any) -> None:
    """Slots and memory are flat: what a fifth of 10,000 requests have taken is what all take.

    On V2, in Triton's interpreter, 10,000 take hours: a tenth of them.
    """
    import resource

    many = 1_000 if driver.V2 else 10_000
    check(engine, many // 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check(engine, many - many // 5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes
