"""Engine features beside each kind of method: each works, or is refused with its text; the README's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines import adapters, matrix, scenario
from engines.vllm import driver

import midstep

ENGINE = driver.RUNNER


def sampling(feature: matrix.Feature, methods: Any) -> Any:
    """Return the SamplingParams of one cell."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    given = dict(feature.vllm or {})
    if "regex" in given:
        given["structured_outputs"] = StructuredOutputsParams(regex=given.pop("regex"))
    usual = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True, "output_kind": RequestOutputKind.FINAL_ONLY}
    return SamplingParams(extra_args=midstep.request(**methods), **{**usual, **given})


def test_every_feature_beside_every_kind_of_method(engine: Any, small: str) -> None:
    """All cells in one batch: what the feature promises holds, and what the method does is reported."""
    prompt = scenario.load_tokenizer(small)(matrix.PROMPT).input_ids
    cells = {
        f"{feature.name} x {kind}": (feature, kind, sampling(feature, methods))
        for feature in matrix.FEATURES
        if feature.vllm is not None
        for kind, methods in matrix.KINDS.items()
    }
    answers = driver.run(engine, [(name, prompt, params) for name, (_, _, params) in cells.items()])
    for name, (feature, kind, params) in cells.items():
        samples = answers[name]
        seen = matrix.Answer(
            [sample.ids for sample in samples],
            [sample.text for sample in samples],
            [line[token].logprob for line, token in zip(samples[0].logprobs, samples[0].ids, strict=False)],
            params.prompt_logprobs,
        )
        assert feature.holds(seen), f"{name}: {seen}"
        for sample in samples:
            assert sample.report is not None, name
            assert list(sample.report.methods) == list(matrix.KINDS[kind]), name
            assert not sample.report.faults, f"{name}: {sample.report.faults}"
            if kind == "forced sequence" and len(sample.ids) >= 3:
                assert tuple(sample.ids[1:3]) == matrix.FORCED, f"{name}: {sample.ids}"
    for feature in matrix.FEATURES:
        if feature.vllm is not None:
            matrix.record(ENGINE, feature.name, "works")


def test_the_readme_has_the_table() -> None:
    """The table in the README is the one that the tests saw."""
    assert matrix.in_readme() == matrix.table(), "run `python tests/engines/matrix.py`"


def test_a_row_that_wears_a_lora_adapter(small: str, tmp_path: Path) -> None:
    """Beside a row without one: each answers as midstep-eager does, the first with the adapter merged in."""
    from vllm.lora.request import LoRARequest

    import midstep_eager

    network, tokenizer = scenario.load(small)
    folder = adapters.make(network, tmp_path / "adapter")
    prompt = tokenizer(matrix.PROMPT).input_ids
    extra = midstep.request(min_p={"p": 0.1}, bracket={})
    options = midstep_eager.Options(max_tokens=10, seed=4, ignore_eos=True, sampling=midstep.Sampling(temperature=1.1))
    expected = {
        "adapter": midstep_eager.generate(adapters.merged(network, folder), None, prompt, options, extra=extra)[0].ids,
        "base": midstep_eager.generate(network, None, prompt, options, extra=extra)[0].ids,
    }
    assert expected["adapter"] != expected["base"], "the adapter changes nothing: the test would not see it"
    # one more place than adapters: on a CPU, vLLM gives a row without an adapter the last one when all places are full
    engine = driver.start(small, enable_lora=True, max_loras=2, max_lora_rank=adapters.RANK)
    try:
        core = engine.llm_engine
        for name, lora in (("adapter", LoRARequest("adapter", 1, str(folder))), ("base", None)):
            params = sampling_of(extra)
            core.add_request(name, {"prompt_token_ids": prompt, "type": "token"}, params, lora_request=lora)
        found = {name: [driver.Sample()] for name in expected}
        while core.has_unfinished_requests():
            for output in core.step():
                driver.collect(found[output.request_id], output)
    finally:
        driver.stop(engine)
    assert {name: samples[0].ids for name, samples in found.items()} == expected
    matrix.record(ENGINE, "LoRA", "works")


def sampling_of(extra: Any) -> Any:
    """Return hot, seeded SamplingParams."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    kind = RequestOutputKind.FINAL_ONLY
    return SamplingParams(temperature=1.1, seed=4, max_tokens=10, ignore_eos=True, extra_args=extra, output_kind=kind)
