"""What an engine cannot serve is refused when it is asked for, with value and way out; defaults are left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engines.vllm import driver
from engines.vllm.crowd import MIN_P, prompt, sampling

import midstep

FORCE = midstep.request(force={"at": 1})


def refusal(engine: Any, params: Any, asked: Any = None) -> str:
    """Return the text with which a request is refused; afterwards a good one must be answered."""
    with pytest.raises(ValueError) as caught:
        driver.run(engine, [("bad", asked or prompt(8, 1), params)])
    assert not engine.llm_engine.has_unfinished_requests()
    assert len(driver.run(engine, [("good", prompt(8, 1), sampling(max_tokens=2))])["good"][0].ids) == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"extra": {"_midstep": {}, **MIN_P}}, ("_midstep", "midstep.request()")),
        ({"n": 65}, ("n = 65", "64", "limits.n")),
        ({"extra": midstep.request(min_p={"p": 0.1}) | {"midstep.min_p.p": 7.0}}, ("min_p.p = 7.0", "<= 1")),
        ({"extra": {"midstep": '{"methods": {"faulty_prepare": {}}}'}}, ("faulty_prepare", "KeyError")),
        ({"extra": {"midstep": "careful"}}, ("'careful'", "presets")),
    ],
)
def test_a_request_that_is_refused(engine: Any, more: dict[str, Any], says: tuple[str, ...]) -> None:
    """Nothing of it reaches the engine, and its text names the value and the way out."""
    text = refusal(engine, sampling(**{"extra": MIN_P, **more}))
    assert all(part in text for part in says), text


def test_what_the_engine_reserves(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of vLLM that would overwrite or misread a steered row: each is named, with the way out."""
    processor = engine.llm_engine.input_processor
    config = processor.vllm_config
    monkeypatch.setattr(config.model_config, "logprobs_mode", "processed_logprobs")
    assert "raw_logprobs" in refusal(engine, sampling(logprobs=1))
    monkeypatch.setattr(config.model_config, "logprobs_mode", "raw_logprobs")
    monkeypatch.setattr(config.model_config, "enable_trace_replay", True)
    assert "trace_decode_token_ids" in refusal(engine, sampling(trace_decode_token_ids=[40, 41]))
    monkeypatch.undo()
    from types import SimpleNamespace

    reasoning = SimpleNamespace(enabled=True)
    monkeypatch.setattr(config, "reasoning_config", reasoning)
    assert "thinking_token_budget" in refusal(engine, sampling(extra=FORCE, thinking_token_budget=4))


def test_a_hand_made_engine_request(engine: Any) -> None:
    """An EngineCoreRequest that never passed admission is refused, not answered without its methods."""
    from vllm.v1.engine import EngineCoreRequest

    params = sampling()
    request = EngineCoreRequest(
        request_id="raw", prompt_token_ids=prompt(8, 1), mm_features=None, sampling_params=params, pooling_params=None,
        arrival_time=0.0, lora_request=None, cache_salt=None, data_parallel_rank=None,
    )  # fmt: skip
    with pytest.raises(ValueError, match="process_inputs"):
        engine.llm_engine.add_request("raw", request, params)
    assert not engine.llm_engine.has_unfinished_requests()


@pytest.fixture(scope="module")
def by_default(small: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An engine whose own configuration turns methods on for everybody."""
    settings = tmp_path_factory.mktemp("settings") / "midstep.toml"
    settings.write_text(
        "[defaults.min_p]\np = 0.3\n[defaults.force]\nat = 1\n[presets.hot.min_p]\np = 0.9\n"
        "[limits]\ncall_seconds = 0.5\nslow_calls = 2\n"
    )
    started = driver.start(small, additional_config={"midstep": str(settings)}, max_num_seqs=8)
    yield started
    driver.stop(started)


def test_methods_that_the_server_turns_on(by_default: Any) -> None:
    """A request that asks for nothing gets the defaults; a preset, and what the request says itself, win over them."""
    extras = {
        "nothing": None,
        "preset": {"midstep": "hot"},
        "own": midstep.request(min_p={"p": 0.5}),
        "off": {"midstep": '{"methods": {"min_p": null, "force": null}}'},
    }
    found = driver.run(by_default, [(k, prompt(8, 1), sampling(1, extra)) for k, extra in extras.items()])
    params = {k: {m: r.params for m, r in s[0].report.methods.items()} for k, s in found.items() if s[0].report}
    assert {k: p["min_p"]["p"] for k, p in params.items()} == {"nothing": 0.3, "preset": 0.9, "own": 0.5}
    assert all("force" in p for p in params.values())
    assert found["nothing"][0].ids[1:4] == [40, 41, 42]


def test_defaults_that_cannot_be_served_are_left_out(by_default: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client did not ask for a method, the request is served without it instead of being refused."""
    config = by_default.llm_engine.input_processor.vllm_config
    from types import SimpleNamespace

    monkeypatch.setattr(config, "reasoning_config", SimpleNamespace(enabled=True))
    found = driver.run(by_default, [("a", prompt(8, 1), sampling(1, None, thinking_token_budget=9, max_tokens=3))])
    assert list(found["a"][0].report.methods) == ["min_p"]
    monkeypatch.setattr(config.model_config, "logprobs_mode", "processed_logprobs")
    found = driver.run(by_default, [("a", prompt(8, 1), sampling(1, None, logprobs=1, max_tokens=3))])
    assert found["a"][0].report is None


def test_the_servers_own_limits(by_default: Any) -> None:
    """The worker has them too: here a method is slow, and left out, earlier than by midstep's own."""
    slow = {"midstep": '{"methods": {"min_p": null, "force": null, "faulty_slow": {"at": 2, "seconds": 0.6}}}'}
    sample = driver.run(by_default, [("slow", prompt(8, 1), sampling(1, slow))])["slow"][0]
    assert sample.stop_reason == "midstep:faulty_slow:slow"
    assert len(sample.ids) == 5
