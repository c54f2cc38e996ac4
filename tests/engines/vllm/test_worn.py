"""Companions that wear LoRA adapters, in an engine that chunks every prompt and preempts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import scenario, worn
from engines.scenario import STORY

import midstep

LOST = midstep.request(proxy_tuning={"expert": "lora:lost"})
PAIR = midstep.request(proxy_tuning={"expert": worn.EXPERT})


@pytest.fixture(scope="module")
def made(small: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the adapters as LoRARequests, and what midstep-eager answers."""
    from vllm.lora.request import LoRARequest

    folder, expected = worn.made(small)
    places = worn.folders(folder)
    return {name: LoRARequest(name, 2 + i, str(places[name])) for i, name in enumerate(places)}, expected


def ask(engine: Any, name: str, prompt: list[int], adapter: Any = None, **params: Any) -> None:
    """Add one request."""
    from vllm import SamplingParams

    own = SamplingParams(**{"temperature": 0.0, "max_tokens": 40, "ignore_eos": True, **params})
    engine.llm_engine.add_request(name, {"prompt_token_ids": prompt, "type": "token"}, own, lora_request=adapter)


def answers(engine: Any) -> dict[str, Any]:
    """Run until nothing is left, and return the answers by name."""
    found: dict[str, Any] = {}
    while engine.llm_engine.has_unfinished_requests():
        found |= {output.request_id: output.outputs[0] for output in engine.llm_engine.step()}
    return found


def test_each_companion_wears_its_own(tight: Any, small: str, made: Any) -> None:
    """All cases at once, dressed neighbours among them: the ids are those of midstep-eager with merged weights."""
    adapters, expected = made
    for one in adapters.values():
        assert tight.llm_engine.add_lora(one)
    for case in worn.CASES:
        prompt = scenario.load_tokenizer(small)(case.prompt).input_ids
        params = {"temperature": case.temperature, "seed": case.seed, "max_tokens": case.max_tokens}
        ask(tight, case.name, prompt, adapters.get(case.wears), extra_args=case.entry(), **params)
    found = answers(tight)
    assert {name: list(answer.token_ids) for name, answer in found.items()} == expected
    assert len({tuple(ids) for ids in expected.values()}) == len(expected), "two cases that no adapter tells apart"


def test_an_adapter_that_is_not_there_is_refused(tight: Any, small: str, made: Any) -> None:
    """One never loaded, and one that was removed; and one that a request has worn is known."""
    adapters, _ = made
    prompt = scenario.load_tokenizer(small)(STORY).input_ids
    core = tight.llm_engine
    with pytest.raises(ValueError, match="wears the adapter 'lost', which is not loaded; loaded: "):
        ask(tight, "lost", prompt, extra_args=LOST)
    math = adapters[worn.FIRST]
    core.remove_lora(math.lora_int_id)
    with pytest.raises(ValueError, match="wears the adapter 'math', which is not loaded"):
        ask(tight, "removed", prompt, extra_args=PAIR)
    ask(tight, "worn", prompt, math, max_tokens=2)
    ask(tight, "known", prompt, extra_args=PAIR, max_tokens=2)
    assert len(answers(tight)["known"].token_ids) == 2


def test_more_adapters_than_places_are_refused(tight: Any, small: str, made: Any, tmp_path: Path) -> None:
    """What can never run at once is refused; and on a CPU, what vLLM would dress wrongly."""
    from vllm.lora.request import LoRARequest

    adapters, _ = made
    prompt = scenario.load_tokenizer(small)(STORY).input_ids
    core, place = tight.llm_engine, adapters[worn.FIRST].lora_path
    more = [LoRARequest(f"more{i}", 10 + i, place) for i in range(3)]
    for one in (*adapters.values(), *more):
        core.add_lora(one)
    with pytest.raises(ValueError, match=r"some of its rows wear no adapter.*start with --max-loras \d"):
        ask(tight, "bare", prompt, extra_args=PAIR)
    wanted = {"order": ["proxy_tuning", "dexperts"]}
    many = midstep.request(
        proxy_tuning={"expert": "lora:more0", "anti": "lora:more1"},
        dexperts={"expert": "lora:more2", "anti": worn.EXPERT},
        **wanted,
    )
    with pytest.raises(ValueError, match="wear 5 adapters at once; this server has room for 4"):
        ask(tight, "many", prompt, adapters[worn.SECOND], extra_args=many)
    for one in more:
        core.remove_lora(one.lora_int_id)
