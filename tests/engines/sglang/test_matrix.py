"""Engine features beside each kind of method: each works, or is refused with its text; the README's table."""

from __future__ import annotations

import asyncio
from typing import Any

from engines import matrix, scenario
from engines.sglang.servers import Models

import midstep

ENGINE = "SGLang"
USUAL = {"temperature": 0.0, "max_new_tokens": 8, "ignore_eos": True}


def test_every_feature_beside_every_kind_of_method(engine: Any, models: Models) -> None:
    """All cells at once: what the feature promises holds, and what the method does is reported."""
    prompt = scenario.load_tokenizer(models.small)(matrix.PROMPT).input_ids
    cells = [
        (feature, kind, methods)
        for feature in matrix.FEATURES
        if feature.sglang is not None
        for kind, methods in matrix.KINDS.items()
    ]

    async def ask(feature: matrix.Feature, methods: Any) -> list[Any]:
        params = {**USUAL, **(feature.sglang or {}), "custom_params": midstep.request(**methods)}
        found = await engine.async_generate(input_ids=prompt, sampling_params=params, **feature.request)
        return found if isinstance(found, list) else [found]

    async def everything() -> list[list[Any]]:
        return await asyncio.gather(*(ask(feature, methods) for feature, _, methods in cells))

    for (feature, kind, methods), answers in zip(cells, engine.loop.run_until_complete(everything()), strict=True):
        about = f"{feature.name} x {kind}"
        metas = [answer["meta_info"] for answer in answers]
        seen = matrix.Answer(
            [answer["output_ids"] for answer in answers],
            [answer["text"] for answer in answers],
            [line[0] for line in metas[0].get("output_token_logprobs") or ()],
            metas[0].get("input_token_logprobs"),
        )
        assert feature.holds(seen), f"{about}: {seen}"
        for answer in answers:
            report = midstep.report(answer)
            assert report is not None, about
            assert list(report.methods) == list(methods), about
            assert not report.faults, f"{about}: {report.faults}"
            if kind == "forced sequence" and len(answer["output_ids"]) >= 3:
                assert tuple(answer["output_ids"][1:3]) == matrix.FORCED, f"{about}: {answer['output_ids']}"
    for feature in matrix.FEATURES:
        matrix.record(ENGINE, feature.name, "works" if feature.sglang is not None else "no such feature")
