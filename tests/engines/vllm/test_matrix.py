"""Engine features beside each kind of method: each works, or is refused with its text; the README's table."""

from __future__ import annotations

from typing import Any

from engines import matrix, scenario
from engines.vllm import driver

import midstep

ENGINE = "vLLM V2" if driver.V2 else "vLLM V1"


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
