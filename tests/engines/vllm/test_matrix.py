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
    for name, (feature, kind, _) in cells.items():
        samples = answers[name]
        seen = matrix.Answer(
            len(prompt),
            [sample.ids for sample in samples],
            [sample.text for sample in samples],
            [line[token].logprob for line, token in zip(samples[0].logprobs, samples[0].ids, strict=False)],
            samples[0].prompt_logprobs,
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


def test_a_row_that_wears_a_lora_adapter(tight: Any, small: str, tmp_path: Path) -> None:
    """Beside a row without one: each answers as midstep-eager does, the first with the adapter merged in."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    expected = adapters.answers(small, tmp_path / "adapter")
    prompt = scenario.load_tokenizer(small)(matrix.PROMPT).input_ids
    core, found = tight.llm_engine, {}
    for name, lora in (("adapter", LoRARequest("adapter", 1, str(tmp_path / "adapter"))), ("base", None)):
        params = SamplingParams(**adapters.SAMPLING, ignore_eos=True, extra_args=adapters.entry())
        core.add_request(name, {"prompt_token_ids": prompt, "type": "token"}, params, lora_request=lora)
    while core.has_unfinished_requests():
        found |= {output.request_id: list(output.outputs[0].token_ids) for output in core.step()}
    assert found == expected
    matrix.record(ENGINE, "LoRA", "works")
