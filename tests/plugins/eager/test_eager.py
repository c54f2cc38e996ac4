"""The reference engine, against Hugging Face's own generate."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import adapters
from torch import Tensor
from toy import installed
from transformers import LlamaConfig, LlamaForCausalLM

import midstep
import midstep_eager
from midstep_eager import Options, generate

PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def hugging_face(model: Any, **options: Any) -> list[int]:
    found = model.generate(torch.tensor([PROMPT]), attention_mask=torch.ones(1, 4), do_sample=False, **options)
    return list(found[0, len(PROMPT) :].tolist())


def greedy(**more: Any) -> midstep.Sampling:
    return midstep.Sampling(temperature=0.0, **more)


def test_greedy_answers_equal_hugging_face(model: Any) -> None:
    options = Options(max_tokens=12, ignore_eos=True, sampling=greedy())
    expected = hugging_face(model, max_new_tokens=12, min_new_tokens=12)
    assert generate(model, None, PROMPT, Options(max_tokens=12, sampling=greedy(min_tokens=12)))[0].ids == expected
    answer = generate(model, None, PROMPT, options, min_p={"p": 0.3})[0]
    assert answer.report is not None
    assert answer.report.methods["min_p"].changed == 0


def test_a_repetition_penalty_equals_hugging_face(model: Any) -> None:
    expected = hugging_face(model, max_new_tokens=10, min_new_tokens=10, repetition_penalty=1.4)
    options = Options(max_tokens=10, sampling=greedy(repetition_penalty=1.4, min_tokens=10))
    assert generate(model, None, PROMPT, options)[0].ids == expected


def test_samples_are_seeded_by_their_index(model: Any) -> None:
    four = generate(model, None, PROMPT, Options(n=4, seed=7, ignore_eos=True), min_p={"p": 0.01})
    assert len({tuple(a.ids) for a in four}) == 4
    again = generate(model, None, PROMPT, Options(n=1, seed=9, ignore_eos=True), min_p={"p": 0.01})
    assert again[0].ids == four[2].ids
    unseeded = generate(model, None, PROMPT, Options(n=4, ignore_eos=True), min_p={"p": 0.01})
    assert len({tuple(a.ids) for a in unseeded}) == 4


def test_a_stop_ends_the_answer_and_the_report_says_where(model: Any) -> None:
    answer = generate(model, None, PROMPT, Options(ignore_eos=True), deepconf={"threshold": 1e9, "window": 3})[0]
    assert (len(answer.ids), answer.finish_reason, answer.stop_reason) == (3, "stop", "midstep:deepconf")
    assert answer.report is not None
    assert answer.report.stop is not None
    assert answer.report.stop.position == 2


def test_logprobs_are_the_models_own(model: Any) -> None:
    answer = generate(model, None, PROMPT, Options(max_tokens=3, seed=1, ignore_eos=True), min_p={"p": 0.9})[0]
    logits = model(torch.tensor([[*PROMPT, *answer.ids]])).logits[0].detach().log_softmax(-1)
    own = [float(logits[len(PROMPT) - 1 + i, token]) for i, token in enumerate(answer.ids)]
    assert answer.logprobs == pytest.approx(own, abs=1e-4)


def test_masks_and_biases_come_before_the_methods(model: Any) -> None:
    only = Options(
        max_tokens=4, mask=lambda logits, ids: logits.masked_fill(torch.arange(97) != 40 + len(ids), -torch.inf)
    )
    assert generate(model, None, PROMPT, only, min_p={})[0].ids == [40, 41, 42, 43]
    biased = Options(max_tokens=2, bias={50: 1e4}, sampling=greedy())
    assert generate(model, None, PROMPT, biased, min_p={})[0].ids == [50, 50]


class Beside(midstep.LogitsProcessor):
    """Answers what its companion says; the companion has a prompt of its own, and wears what the request names."""

    name = "beside"

    class Params(midstep.Params):
        """What a request may set."""

        wears: str = "own"

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Ask for the companion."""
        return midstep.Prepared(companions={"other": midstep.Companion((9, 10), params.wears)})

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return the companion's row."""
        return rows.companions["other"]


@pytest.fixture
def worn(model: Any, tmp_path: Path) -> Iterator[dict[str, Any]]:
    random = {"math": 0.4, "instruct": -0.4}
    found = {}
    for name, size in random.items():
        found[name] = adapters.merged(model, adapters.make(model, tmp_path))
        with torch.no_grad():
            found[name].lm_head.weight += size * torch.randn(97, 32, generator=torch.Generator().manual_seed(3))
    with installed(logits_processors=[Beside]):
        yield found


def test_the_request_and_each_companion_are_run_by_the_model_that_they_wear(model: Any, worn: dict[str, Any]) -> None:
    """By the answers that those models give without any of it."""
    options = Options(max_tokens=9, ignore_eos=True, sampling=greedy())
    everyone = {None: model, **worn}
    plain = {name: generate(one, None, [9, 10], options)[0].ids for name, one in everyone.items()}
    assert len({tuple(ids) for ids in plain.values()}) == 3
    for own in everyone:
        given: dict[str, Any] = {"adapters": worn, "adapter": own}
        assert generate(model, None, [9, 10], options, **given)[0].ids == plain[own]
        for wears, expected in {"own": own, "base": None, "lora:math": "math", "lora:instruct": "instruct"}.items():
            answer = generate(model, None, PROMPT, options, **given, beside={"wears": wears})[0]
            assert answer.ids == plain[expected]


def test_an_adapter_that_is_not_there_is_refused(model: Any, worn: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"adapter = 'art'; adapters names \['instruct', 'math'\]: add it there"):
        generate(model, None, PROMPT, adapters=worn, adapter="art")
    with pytest.raises(ValueError, match=r"wears the adapter 'art', which is not loaded; loaded: 'instruct', 'math'"):
        generate(model, None, PROMPT, adapters=worn, beside={"wears": "lora:art"})
    with pytest.raises(ValueError, match=r"which is not loaded; loaded: none"):
        generate(model, None, PROMPT, beside={"wears": "lora:math"})


def test_the_whole_engine_is_at_most_150_lines() -> None:
    assert len(Path(midstep_eager.__file__).read_text().splitlines()) <= 150
