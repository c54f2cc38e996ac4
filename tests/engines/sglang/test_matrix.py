"""Engine features beside each kind of method: each works, or is refused with its text; the README's table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from engines import adapters, matrix, parsers, scenario
from engines.sglang.servers import Adapter, Models, Server

import midstep

ENGINE = "SGLang"
MARKS = ("◁think▷", "◁/think▷")  # Kimi's, which are text, and without which an answer is all content
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
            len(prompt),
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


def test_a_row_that_wears_a_lora_adapter(engine: Any, models: Models, adapter: Adapter) -> None:
    """Beside a row without one: each answers as midstep-eager does, the first with the adapter merged in."""
    prompt = scenario.load_tokenizer(models.small)(matrix.PROMPT).input_ids
    own = {**adapters.SAMPLING, "ignore_eos": True, "custom_params": adapters.entry()}
    params = {{"seed": "sampling_seed", "max_tokens": "max_new_tokens"}.get(name, name): own[name] for name in own}

    async def ask(lora: str | None) -> Any:
        return await engine.async_generate(input_ids=prompt, sampling_params=params, lora_path=lora)

    async def both() -> list[Any]:
        return await asyncio.gather(ask("adapter"), ask(None))

    worn, bare = engine.loop.run_until_complete(both())
    assert {"adapter": worn["output_ids"], "base": bare["output_ids"]} == adapter.expected
    assert all("bracket" in midstep.report(answer).methods for answer in (worn, bare))
    matrix.record(ENGINE, "LoRA", "works")


def post(server: Server, path: str, body: Mapping[str, Any], entry: Mapping[str, str]) -> Any:
    """Return the answer to a request of an OpenAI client."""
    response = server.post(path, {"model": "m", **body, "custom_params": entry})
    assert response.status_code == 200, response.text
    return response.json()


def test_echo(server: Server) -> None:
    """A steered completion repeats its prompt before its text, and the text is what it is without the echo."""
    body = {"prompt": matrix.PROMPT, "max_tokens": 6, "temperature": 0}

    def ask(kind: str) -> list[Any]:
        entry = midstep.request(**matrix.KINDS[kind])
        return [post(server, "/v1/completions", {**body, "echo": echo}, entry) for echo in (False, True)]

    for kind, (plain, echoed) in parsers.by_kind(ask).items():
        assert echoed["choices"][0]["text"] == matrix.PROMPT + plain["choices"][0]["text"]
        assert list(midstep.report(echoed).methods) == list(matrix.KINDS[kind])
    matrix.record(ENGINE, "echo", "works")


def test_the_tool_parser(server: Server, models: Models) -> None:
    """A chat whose forced text is a tool call: the parser makes a call of it, and the report is there."""
    tokenizer = scenario.load_tokenizer(models.small)
    answers = parsers.by_kind(lambda kind: post(server, "/v1/chat/completions", *parsers.calling(kind, tokenizer)))
    for kind, answer in answers.items():
        message = answer["choices"][0]["message"]
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["f"], message
        assert set(midstep.report(answer).methods) == {*matrix.KINDS[kind], "force"}
    matrix.record(ENGINE, "tool parser", "works")


def test_the_reasoning_parser(server: Server, models: Models) -> None:
    """What is steered is parted into reasoning and content where its own marks stand, whole and streamed."""
    path, tokenizer = "/v1/chat/completions", scenario.load_tokenizer(models.small)

    def ask(kind: str) -> tuple[Any, Any, list[Any]]:
        body, entry = parsers.thinking(kind, MARKS, tokenizer)
        streamed = server.post(path, {"model": "m", **body, "stream": True, "custom_params": entry}).text
        chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        return post(server, path, {**body, "separate_reasoning": False}, entry), post(server, path, body, entry), chunks

    for kind, (unparted, whole, chunks) in parsers.by_kind(ask).items():
        thought, text = parsers.split(unparted["choices"][0]["message"]["content"], MARKS)
        for about, answers in (("whole", [whole]), ("streamed", chunks)):
            parts = [part.get("message") or part["delta"] for answer in answers for part in answer["choices"]]
            found = ["".join(part.get(name) or "" for part in parts) for name in ("reasoning_content", "content")]
            assert found == [thought, text], f"{kind}, {about}"
            reports = [report for answer in answers if answer["choices"] and (report := midstep.report(answer))]
            assert [set(report.methods) for report in reports] == [{*matrix.KINDS[kind], "force"}]
            assert reports[0].methods["force"].tokens == whole["usage"]["completion_tokens"]
    matrix.record(ENGINE, "reasoning parser", "works")
