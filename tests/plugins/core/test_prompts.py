"""Prompts that a companion may have, on the real model's tokenizer."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from ground import model as ground
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import midstep
from midstep import prompts

CONTEXT = "The sea is green, said the fish."
QUESTION = "What colour is the sea?"
LETTERS = "naïve 🌊🐟 海は青い — “ok”"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ground.paths().real)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> midstep.Model:
    return midstep.Model(vocabulary=len(tokenizer), tokenizer=tokenizer, ends=(2,))


def with_beginning() -> midstep.Model:
    """Return a model whose tokenizer has single letters, and begins each text with a token, as Llama's does."""
    letters = {text: i for i, text in enumerate(["<s>", *"abcdefgh "])}
    made = Tokenizer(models.BPE(letters, []))
    made.add_special_tokens([AddedToken("<s>", special=True)])
    made.normalizer = normalizers.Lowercase()
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return midstep.Model(vocabulary=10, tokenizer=PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>"))


def chat(tokenizer: Any, content: str) -> list[int]:
    messages = [{"role": "user", "content": content}]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return list(found["input_ids"])


def odd(tokenizer: Any, text: str) -> list[int]:
    """Return token ids of `text` that are not the tokenizer's own: letter by letter."""
    ids = [token for letter in text for token in tokenizer(letter).input_ids]
    assert ids != tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    return ids


def test_what_is_left_is_the_prompt_that_its_text_would_have_given(tokenizer: Any, model: midstep.Model) -> None:
    prompt = tokenizer(f"{CONTEXT} {QUESTION}").input_ids
    assert prompts.taken_out(prompt, [f"{CONTEXT} "], model) == tuple(tokenizer(QUESTION).input_ids)
    assert prompts.taken_out(prompt, [f" {QUESTION}"], model) == tuple(tokenizer(CONTEXT).input_ids)
    assert prompts.taken_out(prompt, ["sea is"], model) == tuple(
        tokenizer("The  green, said the fish. What colour is the sea?").input_ids
    )


def test_every_place_is_taken_out_and_places_may_overlap(tokenizer: Any, model: midstep.Model) -> None:
    prompt = tokenizer("one two one three one").input_ids
    assert prompts.taken_out(prompt, ["one"], model) == tuple(tokenizer(" two  three ").input_ids)
    assert prompts.taken_out(prompt, ["one two", "two one "], model) == tuple(tokenizer("three one").input_ids)
    both = prompts.taken_out(prompt, ["two", "three"], model)
    assert both == prompts.taken_out(prompt, ["three", "two"], model) == tuple(tokenizer("one  one  one").input_ids)


def test_a_chat_prompt_keeps_its_template(tokenizer: Any, model: midstep.Model) -> None:
    prompt = chat(tokenizer, f"{CONTEXT}\n\n{QUESTION}")
    assert prompts.taken_out(prompt, [f"{CONTEXT}\n\n"], model) == tuple(chat(tokenizer, QUESTION))
    start = prompts.taken_out(prompt, ["<|im_start|>user\n"], model)
    assert start.count(1) == prompt.count(1) - 1


def test_a_message_is_taken_out_as_the_template_wrote_it(tokenizer: Any, model: midstep.Model) -> None:
    """The prompt is then the one that the chat without that message has given."""

    def ids(*messages: dict[str, str]) -> tuple[int, ...]:
        found = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        return tuple(found["input_ids"])

    system, first = {"role": "system", "content": "Be brief."}, {"role": "user", "content": CONTEXT}
    answer, last = {"role": "assistant", "content": "I see."}, {"role": "user", "content": QUESTION}
    prompt = ids(system, first, answer, last)
    assert prompts.other(prompt, model, without=first) == ids(system, answer, last)
    assert prompts.other(prompt, model, without=[first, answer]) == ids(system, last)
    assert prompts.other(prompt, model, without=["Be brief.", answer]) == ids(
        {"role": "system", "content": ""}, first, last
    )
    with pytest.raises(ValueError, match="is not in the prompt"):
        prompts.other(prompt, model, without={"role": "user", "content": "I see."})
    with pytest.raises(ValueError, match=r"cannot be told apart|does not fit the chat template"):
        prompts.other(prompt, model, without={"text": "Be brief."})


@pytest.mark.parametrize("text", [f"{CONTEXT} {QUESTION}", f"{LETTERS} {CONTEXT} {LETTERS}"])
def test_tokens_that_are_not_those_of_the_text_stay_as_they_are(
    tokenizer: Any, model: midstep.Model, text: str
) -> None:
    prompt = odd(tokenizer, text)
    left = prompts.taken_out(prompt, [CONTEXT], model)
    assert tokenizer.decode(left) == text.replace(CONTEXT, "")
    assert list(left) == odd(tokenizer, text.replace(CONTEXT, ""))


def test_a_letter_of_several_tokens_goes_as_a_whole(tokenizer: Any, model: midstep.Model) -> None:
    for letter in "ï🌊🐟海“":
        left = prompts.taken_out(odd(tokenizer, LETTERS), [letter], model)
        assert tokenizer.decode(left) == LETTERS.replace(letter, "")


def test_a_token_that_touches_the_place_goes_too(tokenizer: Any, model: midstep.Model) -> None:
    ids = [*tokenizer("x").input_ids, *tokenizer("colour").input_ids, *tokenizer(" ").input_ids * 3]
    assert tokenizer(tokenizer.decode(ids)).input_ids != ids
    left = prompts.taken_out(ids, ["o"], model)
    assert not set(left) & {token for token in ids if "o" in tokenizer.decode([token])}
    assert left[0] == ids[0]


def test_a_long_prompt_of_other_tokens_takes_no_longer_than_it_must(tokenizer: Any, model: midstep.Model) -> None:
    """Each token is decoded a few times, not once for each token behind it."""
    prompt = odd(tokenizer, f"{LETTERS} {QUESTION} " * 400 + CONTEXT)
    assert len(prompt) > 16_000
    started = time.perf_counter()
    left = prompts.taken_out(prompt, [CONTEXT], model)
    assert time.perf_counter() - started < 20
    assert list(left) == prompt[: len(left)]


def test_a_prefix_comes_before_the_prompt(tokenizer: Any, model: midstep.Model) -> None:
    prompt = tokenizer(QUESTION).input_ids
    assert prompts.behind(prompt, "Be rude.", model) == tuple(tokenizer(f"Be rude. {QUESTION}").input_ids)
    assert prompts.behind(prompt, [7, 8], model) == (7, 8, *prompt)
    other = odd(tokenizer, QUESTION)
    assert prompts.behind(other, "Be rude.", model) == (*tokenizer("Be rude. ").input_ids, *other)


def test_a_prefix_may_stand_in_a_message(tokenizer: Any, model: midstep.Model) -> None:
    prompt = chat(tokenizer, f"{QUESTION} {QUESTION}")
    wanted = chat(tokenizer, f"{QUESTION} Be rude. {QUESTION}")
    assert prompts.behind(prompt, "Be rude.", model, before=QUESTION) == tuple(wanted)
    ids = prompts.behind(prompt, [7, 8], model, before=QUESTION)
    at = ids.index(7)
    assert (ids[:at], ids[at + 2 :]) == (tuple(prompt[:at]), tuple(prompt[at:]))
    # the blank before the question is part of its first token
    assert tokenizer.decode(ids[at + 2 :]).startswith(f" {QUESTION}")


def test_what_a_tokenizer_begins_each_text_with_stays_in_front() -> None:
    model = with_beginning()
    prompt = model.tokenizer("abc").input_ids
    assert prompt == [0, 1, 2, 3]
    assert prompts.behind(prompt, "de", model) == (0, 4, 5, 9, 1, 2, 3)
    assert prompts.behind(prompt, [7], model) == (0, 7, 1, 2, 3)
    assert prompts.behind([1, 2], "de", model) == (4, 5, 9, 1, 2)
    assert prompts.taken_out(prompt, ["b"], model) == (0, 1, 3)


def test_a_prompt_is_a_text_ids_or_messages(tokenizer: Any, model: midstep.Model) -> None:
    assert prompts.encoded(QUESTION, model) == tuple(tokenizer(QUESTION).input_ids)
    assert prompts.encoded([5, 6], model) == (5, 6)
    messages = [{"role": "user", "content": QUESTION}]
    assert prompts.encoded(messages, model) == tuple(chat(tokenizer, QUESTION))
    assert prompts.other([5], model, instead=messages) == tuple(chat(tokenizer, QUESTION))
    prompt = tokenizer(f"{CONTEXT} {QUESTION}").input_ids
    assert prompts.other(prompt, model, without=f"{CONTEXT} ") == tuple(tokenizer(QUESTION).input_ids)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "none of without and instead is given; send exactly one"),
        ({"without": "a", "instead": "b"}, "both of without and instead"),
        ({"without": "cloud"}, "'cloud' is not in the prompt; name a text that stands there word for word"),
        ({"without": ["sea", "cloud"]}, "'cloud' is not in the prompt"),
        ({"without": []}, "names no text"),
        ({"without": ""}, "'' is not in the prompt"),
        ({"without": QUESTION}, "nothing of the prompt is left"),
        ({"instead": ""}, "is an empty prompt"),
        ({"instead": []}, "is an empty prompt"),
        ({"instead": [{"no": "role"}]}, "do not fit the chat template"),
    ],
)
def test_what_names_no_other_prompt_is_refused(
    tokenizer: Any, model: midstep.Model, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        prompts.other(tokenizer(QUESTION).input_ids, model, **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"without": "a"}, "'a' needs a tokenizer, and this server has none; send token ids"),
        ({"instead": "a"}, "send token ids"),
        ({"instead": [{"role": "user", "content": "a"}]}, "send token ids"),
    ],
)
def test_a_text_needs_a_tokenizer(given: dict[str, Any], says: str) -> None:
    bare = midstep.Model(vocabulary=100)
    assert prompts.other([1], bare, instead=[2]) == (2,)
    assert prompts.behind([1], [2], bare) == (2, 1)
    with pytest.raises(ValueError, match=says):
        prompts.other([1], bare, **given)
    with pytest.raises(ValueError, match="send token ids"):
        prompts.behind([1], "a", bare)


def test_a_message_of_a_prompt_needs_a_chat_template() -> None:
    said = r"is a message, and the model has no chat template; name a text of the prompt"
    with pytest.raises(ValueError, match=said):
        prompts.other([1, 2], with_beginning(), without={"role": "user", "content": "a"})


def test_messages_need_a_chat_template() -> None:
    with pytest.raises(ValueError, match="has no chat template; send a text or token ids"):
        prompts.encoded([{"role": "user", "content": "a"}], with_beginning())


@pytest.mark.parametrize(("prefix", "before"), [("", None), ([], None), ("a", "z")])
def test_a_prefix_that_cannot_be_put_is_refused(
    model: midstep.Model, tokenizer: Any, prefix: str | Sequence[int], before: str | None
) -> None:
    with pytest.raises(ValueError, match=r"is empty; send a text or token ids|'z' is not in the prompt"):
        prompts.behind(tokenizer(QUESTION).input_ids, prefix, model, before=before)
