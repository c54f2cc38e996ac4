"""Thinking budget: its texts, and the machine that keeps to it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from toy import call
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import midstep
from midstep import testing
from midstep.record import Event
from midstep_thinking_budget import ThinkingBudget

GREEDY = midstep.Sampling(temperature=0.0)
WORDS = ["?", "\n", "\n\n", ".\n", "Wait", "So", *"abcdefgxyz<>/.! "]


def tokenizer(pair: Sequence[str] = ("<think>", "</think>"), template: str | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer of a few words and single characters; each of `pair` is one token."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"Wait|So|\.\n|\n\n|."), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?")
    fast.add_special_tokens({"additional_special_tokens": list(pair)})
    fast.chat_template = template
    return fast


TOKENIZER = tokenizer()
VOCABULARY = len(TOKENIZER)


def admit(
    prompt: str = "So<think>", sampling: midstep.Sampling = GREEDY, made: Any = TOKENIZER, seed: int = 1, **params: Any
) -> midstep.Admission:
    """Admit a request whose prompt is a text."""
    asked = midstep.parse(midstep.request(thinking_budget=params))
    assert asked is not None
    ids = made.encode(prompt, add_special_tokens=False)
    admitted = midstep.admit(asked, ids, sampling, midstep.Model(len(made), made), seed=seed)
    assert admitted is not None
    return admitted.stamped("a")


def run(
    wish: Callable[[list[str]], str],
    count: int,
    positions: Sequence[int] | None = None,
    made: Any = TOKENIZER,
    **more: Any,
) -> tuple[list[str], list[Event]]:
    """Let a model say `count` tokens; at each it wishes to say `wish` of what was said so far."""
    one, pipeline = admit(made=made, **more), midstep.Pipeline("cpu", max_length=2048)
    said: list[str] = []
    events = []
    for position in positions or range(count):
        del said[position:]
        logits = torch.zeros(1, len(made))
        logits[0, made.convert_tokens_to_ids(wish(said))] = 50.0
        tokens, told = call(pipeline, [one], logits, position)
        said += made.convert_ids_to_tokens(tokens)
        events += told.values()
    return said, events


def thinker(*thoughts: int, end: Sequence[str] = ("</think>",)) -> Callable[[list[str]], str]:
    """Return a model that thinks "x" so often, ends its thought, or goes on with the next one where it is made to wait,
    and then says "y"."""

    def wish(said: list[str]) -> str:
        if end[-1] in said:
            return "y"
        waits = said.count("Wait")
        thought = said[len(said) - said[::-1].index("Wait") :] if waits else said
        extra = len(thought) - thoughts[waits]
        return "x" if extra < 0 else end[min(extra, len(end) - 1)]

    return wish


def spelt(text: str) -> list[str]:
    """Return the tokens of a text."""
    return list(TOKENIZER.tokenize(text))


def test_the_real_models_tokenizer_and_a_template_with_think_tags() -> None:
    """SmolLM2 has no such tokens: a template that opens a thought names them, and the prompt then ends within one."""
    from ground import model

    real = AutoTokenizer.from_pretrained(str(model.paths().real))
    about = midstep.Model(vocabulary=len(real), tokenizer=real)
    with pytest.raises(ValueError, match="send start and end"):
        ThinkingBudget.prepare(ThinkingBudget.Params(maximum=4), (1, 2), about)
    real.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    for opens in (True, False):
        prompt = real.apply_chat_template(
            [{"role": "user", "content": "Hi"}], add_generation_prompt=opens, tokenize=True, return_dict=False
        )
        prepared = ThinkingBudget.prepare(ThinkingBudget.Params(maximum=4, answer="So:"), prompt, about)
        assert prepared.columns["open"] == opens
        assert real.decode(prepared.sequences["1 newline"]) == "\n</think>So:"


def test_a_thought_within_its_budget_is_left_alone() -> None:
    """Golden D8.budget, first case: end after 100 tokens, no wait."""
    said, events = run(thinker(100, 50, 30), 103, maximum=1000)
    assert said == [*"x" * 100, "</think>", "y", "y"]
    assert events == []


def test_the_end_is_replaced_so_many_times() -> None:
    """Golden D8.budget, second case: two waits, and the end after 182 tokens."""
    said, events = run(thinker(100, 50, 30), 184, maximum=1000, waits=2)
    assert said == [*"x" * 100, "Wait", *"x" * 50, "Wait", *"x" * 30, "</think>", "y"]
    assert [(event.position, event.value, event.rule) for event in events] == [
        (100, 100.0, "thinking_budget"),
        (151, 151.0, "thinking_budget"),
    ]


def test_the_maximum_closes_the_thought() -> None:
    """Golden D8.budget, third case: one wait, and the end is forced after 1,000 tokens, here on a new line."""
    said, events = run(thinker(100, 950, 9), 1004, maximum=1000, waits=1)
    assert said == [*"x" * 100, "Wait", *"x" * 899, "\n", "</think>", "y", "y"]
    assert (events[1].position, events[1].value, events[1].threshold) == (1000, 1000.0, 1000.0)
    assert events[1].changed == ("thinking_budget",)


def test_the_answer_text_follows_a_forced_end_only() -> None:
    """A thought that ends by itself is followed by the model's own words."""
    assert "".join(run(thinker(9), 12, maximum=4, answer="\n\na.")[0]) == "xxxx\n</think>\n\na.yyy"
    assert "".join(run(thinker(3), 6, maximum=4, answer="\n\na.")[0]) == "xxx</think>yy"


@pytest.mark.parametrize("line_end", ["\n", "\n\n", ".\n"])
def test_no_new_line_after_a_line_end(line_end: str) -> None:
    """Whichever token the line ended with."""
    said, _ = run(lambda said: "x" if len(said) != 3 else line_end, 6, maximum=4)
    assert said == ["x", "x", "x", line_end, "</think>", "x"]


def test_a_maximum_of_0_closes_at_once() -> None:
    """After the prompt's line end without another one."""
    assert run(thinker(9), 3, maximum=0, prompt="<think>.\n")[0] == ["</think>", "y", "y"]
    assert run(thinker(9), 3, maximum=0, prompt="<think>")[0] == ["\n", "</think>", "y"]


def test_before_the_minimum_the_end_is_replaced() -> None:
    """As often as it comes, and the waits are thinking too."""
    said, events = run(thinker(2, 1, 0, 3, 0), 12, minimum=6)
    assert said == [*"xx", "Wait", "x", "Wait", "Wait", *"xxx", "</think>", "y", "y"]
    assert [(event.position, event.value, event.threshold) for event in events] == [(2, 2, 6), (4, 4, 6), (5, 5, 6)]


def test_at_the_minimum_the_end_is_let_through() -> None:
    """Not one token later."""
    assert run(thinker(6), 8, minimum=6)[0] == [*"xxxxxx", "</think>", "y"]


def test_a_wait_before_the_minimum_is_one_of_the_waits() -> None:
    """Two waits, one of which the minimum needed anyhow."""
    said, _ = run(thinker(2, 9, 1), 16, minimum=6, waits=2)
    assert said == [*"xx", "Wait", *"x" * 9, "Wait", "x", "</think>", "y"]


def test_a_wait_text_of_several_tokens_is_forced_whole() -> None:
    """Token by token; the end is not forced within it."""
    said, _ = run(thinker(2, 20), 12, maximum=4, waits=1, wait="Wait. So!")
    assert said == [*"xx", *spelt("Wait. So!"), "\n", "</think>", *"yyy"]


def test_a_wait_that_the_model_says_itself_does_not_count() -> None:
    """It may say it as often as it likes."""
    said, _ = run(lambda said: ["x", "Wait", "</think>", "Wait", "</think>", "y"][len(said)], 6, waits=1)
    assert said == ["x", "Wait", "Wait", "Wait", "</think>", "y"]


# In these every text has several tokens.
LETTERS = {"made": tokenizer(()), "start": "<a>", "end": "</a>", "prompt": "<a>"}
END = ["<", "/", "a", ">"]


def test_an_end_of_several_tokens_is_replaced_at_its_last_one() -> None:
    """Its first tokens are let through."""
    said, _ = run(thinker(2, 1, end=END), 12, waits=1, **LETTERS)
    assert said == [*"xx", "<", "/", "a", "Wait", "x", *END, "y"]


@pytest.mark.parametrize("begun", [0, 1, 2, 3])
def test_the_maximum_completes_an_end_that_is_under_way(begun: int) -> None:
    """Only what is missing of it is forced, and a new line only before a whole one."""
    said, _ = run(lambda said: END[len(said)] if len(said) < begun else "b", 9, maximum=begun, answer="c", **LETTERS)
    whole = [*END, "c"] if begun else ["\n", *END, "c"]
    assert said == [*whole, *"b" * (9 - len(whole))]


def test_half_an_end_text_is_no_end() -> None:
    """The thought goes on, and the maximum closes it."""
    said, _ = run(lambda said: [*"</b", *"x" * 9][len(said)], 9, maximum=4, **LETTERS)
    assert said == [*"</bx", "\n", *END]


def test_the_start_text_begins_a_thought() -> None:
    """The prompt has none; it may have several tokens, and the budget counts from its end."""
    said, _ = run(lambda said: "x", 6, prompt="So", maximum=2)
    assert said == list("xxxxxx")
    said, _ = run(lambda said: [*"bb<a>", *"x" * 9][len(said)], 12, maximum=2, **{**LETTERS, "prompt": "So"})
    assert said == [*"bb<a>", *"xx", "\n", *"</a>"]


def test_a_thought_that_the_prompt_has_closed_is_not_one() -> None:
    """The last start text counts, and what follows it."""
    assert run(lambda said: "x", 3, prompt="<think>a</think>b", maximum=0)[0] == list("xxx")
    assert run(lambda said: "x", 3, prompt="<think>a</think><think>a", maximum=0)[0] == ["\n", "</think>", "x"]


def test_thinking_now_needs_no_start_text() -> None:
    """The prompt is taken as one that has opened a thought."""
    assert run(thinker(9), 5, prompt="So", thinking="now", maximum=2)[0] == [*"xx", "\n", "</think>", "y"]


def test_a_second_thought_has_what_the_first_one_left() -> None:
    """The maximum is the request's."""
    said, _ = run(lambda said: ["x", "x", "</think>", "b", "<think>", *"x" * 9][len(said)], 10, maximum=4)
    assert said == ["x", "x", "</think>", "b", "<think>", "x", "\n", "</think>", "x", "x"]


def test_a_call_may_be_repeated_and_rewound() -> None:
    """The machine is a function of the position."""
    plain = run(thinker(3, 9), 12, maximum=7, waits=1)[0]
    positions = [0, 0, 1, 2, 3, 3, 4, 5, 3, 4, 5, 6, 7, 6, 7, 8, 8, 9, 10, 11]
    assert run(thinker(3, 9), 12, positions, maximum=7, waits=1)[0] == plain
    assert plain == [*"xxx", "Wait", *"xxx", "\n", "</think>", *"yyy"]


def test_a_forced_end_that_the_engine_masks_is_a_fault() -> None:
    """As a grammar would."""
    one, logits = admit(maximum=0, prompt="<think>\n"), torch.zeros(1, VOCABULARY)
    logits[0, TOKENIZER.convert_tokens_to_ids("</think>")] = -torch.inf
    _, events = call(midstep.Pipeline("cpu"), [one], logits)
    assert (events["a"].fault, events["a"].method) == ("masked", "thinking_budget")


def drawn(one: midstep.Admission, count: int) -> list[int]:
    """Return what a request draws from rows in which every token is likely."""
    pipeline, said = midstep.Pipeline("cpu", max_length=64), []
    for position in range(count):
        logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(position)) / 2
        said += call(pipeline, [one], logits, position)[0]
    return said


def test_of_sampled_tokens_only_the_end_is_replaced() -> None:
    """Every other draw is what it is without the method, and the wait stands just where the end was drawn."""
    end, wait = TOKENIZER.convert_tokens_to_ids(["</think>", "Wait"])
    warm, replaced = midstep.Sampling(temperature=0.9), 0
    for seed in range(30):
        free = drawn(admit(sampling=warm, seed=seed), 12)
        held = drawn(admit(sampling=warm, seed=seed, minimum=100), 12)
        assert held == [wait if token == end else token for token in free]
        replaced += end in free
    assert 3 < replaced < 30


def test_rows_are_in_different_thoughts_side_by_side() -> None:
    """Texts of different lengths, and one request that has no budget."""
    requests = [
        ("a", admit(maximum=2)),
        ("b", admit(maximum=1, start="<a>", end="</a>", prompt="<a>")),
        ("c", admit(prompt="So", maximum=0)),
        ("d", admit(maximum=3, answer="a")),
    ]
    pipeline, said = midstep.Pipeline("cpu", max_length=64), [list[str]() for _ in requests]
    for position in range(8):
        logits = torch.zeros(4, VOCABULARY)
        logits[:, TOKENIZER.convert_tokens_to_ids("x")] = 50.0
        tokens, _ = call(pipeline, [replace(one, key=key) for key, one in requests], logits, position)
        for row, token in zip(said, tokens, strict=True):
            row.append(TOKENIZER.convert_ids_to_tokens(token))
    assert ["".join(row) for row in said] == [
        "xx\n</think>xxxx",
        "x\n</a>xx",
        "xxxxxxxx",
        "xxx\n</think>axx",
    ]


class WithTokenizer(ThinkingBudget):
    """The method on a server that has a tokenizer."""

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Prepare with it."""
        return super().prepare(params, prompt, replace(model, tokenizer=TOKENIZER))


def test_it_keeps_the_laws() -> None:
    """On a server that has a tokenizer, as every text needs one."""
    testing.check(WithTokenizer)


def prepare(made: Any = TOKENIZER, prompt: Sequence[int] = (), **params: Any) -> midstep.Prepared:
    """Prepare a request."""
    return ThinkingBudget.prepare(ThinkingBudget.Params(**params), prompt, midstep.Model(99, made))


@pytest.mark.parametrize("pair", [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷")])
def test_the_texts_are_found_among_the_added_tokens(pair: tuple[str, str]) -> None:
    """Each of them is one token then."""
    made = tokenizer(pair, template="<thought> and </thought>")
    found = prepare(made).ids
    assert (found["start"], found["end"]) == tuple((made.convert_tokens_to_ids(text),) for text in pair)


def test_else_in_the_chat_template() -> None:
    """There they may have several tokens."""
    made = tokenizer((), template="{{ '<thought>' }}{# …</thought> #}")
    assert prepare(made).ids["end"] == tuple(made.encode("</thought>"))


@pytest.mark.parametrize("template", [None, "{{ messages }}", "<think> without its end"])
def test_a_model_without_texts_needs_them_in_the_request(template: str | None) -> None:
    """Both; the refusal says so."""
    made = tokenizer((), template)
    with pytest.raises(ValueError, match="send start and end"):
        prepare(made)
    assert prepare(made, start="<a>", end="</a>").ids["end"] == tuple(made.encode("</a>"))
    with pytest.raises(ValueError, match=r"start = '<a>' and end = None; send both"):
        prepare(made, start="<a>")


def test_a_request_that_cannot_be_served_is_refused() -> None:
    """Without a tokenizer, with a long text, or with a minimum above the maximum."""
    with pytest.raises(ValueError, match="need a tokenizer"):
        prepare(None)
    with pytest.raises(ValueError, match=r"wait = '!{17}' has 17 tokens; allowed: 1 to 16"):
        prepare(wait="!" * 17)
    with pytest.raises(ValueError, match="maximum = 3 is less than minimum = 4"):
        prepare(maximum=3, minimum=4)


@pytest.mark.parametrize(
    ("name", "value"), [("maximum", -1), ("minimum", -1), ("waits", -1), ("wait", ""), ("end", ""), ("thinking", "no")]
)
def test_parameters_are_bounded(name: str, value: Any) -> None:
    """At admission."""
    with pytest.raises(ValueError, match=f"thinking_budget.{name}"):
        midstep.request(thinking_budget={name: value})
