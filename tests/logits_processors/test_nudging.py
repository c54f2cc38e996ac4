"""Nudging: whose turn it is, word by word, and its effect on an answer."""

import gc
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import two_prompts
from torch import Tensor
from two_prompts import GREEDY, OTHER, PROMPT, looped, one_thread

import midstep
import midstep_nudging.words
from midstep import Companion, testing
from midstep_eager import Options, generate
from midstep_nudging import Nudging
from midstep_nudging.reference import BASE, BITS, NUDGE, nudge
from midstep_nudging.words import starts

INF = float("inf")


class Pieces:
    """A tokenizer whose token i is the i-th piece."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[self.pieces.index(text)])

    def decode(self, ids: Sequence[int], **how: bool) -> str:
        return "".join(self.pieces[token] for token in ids)


def test_it_keeps_the_laws() -> None:
    testing.check(Nudging)


# A1.nudging_round: the nudger says " Sure, here is the answer.", the base " is 42" where it is asked.
WORDS = Pieces("a", " Sure", ",", " here", " is", " the", ".", " I", " 4", "2", "</s>", " z")
END = WORDS.pieces.index("</s>")


def likely(piece: str, p: float) -> Tensor:
    """Return a row [V] in which a piece has probability p, and the others share the rest."""
    rest = (1.0 - p) / (len(WORDS) - 1)
    return torch.full((len(WORDS),), rest).index_fill(0, torch.tensor(WORDS.pieces.index(piece)), p).log()


class Talk:
    """One request's rows, driven by hand: greedy, and the state goes from call to call."""

    def __init__(self, threshold: float = 0.4, mode: int = BASE) -> None:
        model = midstep.Model(len(WORDS), WORDS, ends=(END,))
        self.ids = Nudging.prepare(Nudging.Params(nudger="base", prompt=[1]), (3,), model).ids
        self.threshold, self.mode, self.left = torch.tensor([threshold]), torch.tensor([mode]), torch.empty(0)

    def say(self, base: Tensor, nudger: Tensor) -> str:
        ends, begins = (torch.tensor([list(self.ids[name])], dtype=torch.int64) for name in ("ends", "starts"))
        left, self.mode = nudge(base[None], nudger[None], self.mode, self.threshold, ends, begins)
        self.left = left[0]
        return WORDS.pieces[int(left.argmax())]


def test_its_golden() -> None:
    """A1.nudging_round: " Sure, here" of the nudger, " is 42" of the base, which agrees first and is sure then."""
    talk, said = Talk(), []
    for base, p, nudger in (
        (" z", 0.2, " Sure"),  # not sure: the nudger's first word, accepted
        (" I", 0.9, ","),  # no new word: whatever the base says
        (" I", 0.25, " here"),  # a new word, but the base neither agrees nor is sure
        (" is", 0.35, " is"),  # agrees
        (" 4", 0.9, " the"),
        ("2", 0.95, " the"),
        (".", 0.3, " z"),  # not sure any more
    ):
        said.append(talk.say(likely(base, p), likely(nudger, 0.9)))
    assert "".join(said[:6]) == " Sure, here is 42"
    assert said[6] == " z"


def test_at_the_threshold_the_base_is_sure() -> None:
    """A1.gate_equal_is_base."""
    half = torch.full((len(WORDS),), -INF).index_fill(0, torch.tensor([3, 4]), 0.0)
    assert Talk(0.5).say(half, likely(" z", 0.9)) == " here"
    talk = Talk(0.51)
    talk.say(half, likely(" here", 0.9))
    assert talk.mode.tolist() == [NUDGE]


def test_the_first_word_is_accepted_though_the_base_agrees_or_is_no_word() -> None:
    talk = Talk()
    assert talk.say(likely(" z", 0.3), likely(" z", 0.9)) == " z"
    assert talk.mode.tolist() == [NUDGE]
    talk = Talk()
    assert talk.say(likely(" z", 0.3), likely("2", 0.9)) == "2"


def test_only_the_nudger_ends_the_answer() -> None:
    """A sure base that wants to end gives the turn away, or leaves it; its end token is never drawn from its row."""
    talk = Talk()
    assert talk.say(likely("</s>", 0.95), likely(" the", 0.9)) == " the"
    assert talk.say(likely("</s>", 0.95), likely(" z", 0.9)) == " z"
    assert talk.mode.tolist() == [NUDGE]
    assert talk.say(likely(" I", 0.95), likely("</s>", 0.5)) == "</s>"
    talk = Talk()
    talk.say(likely(" I", 0.95), likely(" z", 0.9))
    assert talk.left[END] == -INF
    assert talk.left.isfinite().sum() == len(WORDS) - 1


def test_masks_of_the_own_row_hold_for_the_nudger() -> None:
    """A grammar that allows but one of its tokens has that one; where nothing is left, the own row stands."""
    base = likely(" I", 0.2)
    base[[WORDS.pieces.index(" the"), END]] = -INF
    talk = Talk()
    assert talk.say(base, likely(" the", 0.9)) != " the"
    assert (talk.left == -INF).tolist() == (base == -INF).tolist()
    last = torch.full((len(WORDS),), -INF)
    last[END] = 0.5
    gone = likely(" the", 0.9).index_fill(0, torch.tensor([END]), -INF)
    talk = Talk()
    assert talk.say(last, gone) == "</s>"
    assert torch.equal(talk.left, last)
    assert Talk().say(last, likely(" the", 0.9)) == "</s>"


def test_threshold_0_is_the_base_alone_and_threshold_1_the_nudger_alone() -> None:
    """Unless the base wants to end, or agrees where a word begins."""
    calm, bold = Talk(0.0), Talk(1.0)
    for base, nudger in ((" I", " Sure"), ("2", " z"), (" z", "2"), (" is", " here")):
        assert calm.say(likely(base, 0.1), likely(nudger, 0.9)) == base
        assert bold.say(likely(base, 0.99), likely(nudger, 0.9)) == nudger


def begin(tokenizer: Any, vocabulary: int) -> set[int]:
    packed = starts(midstep.Model(vocabulary, tokenizer))
    assert len(packed) == -(-vocabulary // BITS)
    return {token for token in range(vocabulary) if packed[token // BITS] >> token % BITS & 1}


def test_words_begin_with_a_blank() -> None:
    assert begin(WORDS, len(WORDS)) == {i for i, piece in enumerate(WORDS.pieces) if piece.startswith(" ")}


def test_words_of_a_tokenizer_whose_pieces_are_bytes_or_do_not_line_up() -> None:
    class Bytes(Pieces):
        """Its pieces are bytes."""

        def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[bytes]:
            return [self.pieces[token].encode() for token in ids]

    class Short(Pieces):
        """Leaves its end token out."""

        all_special_ids = (END,)

        def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
            return [self.pieces[token] for token in ids if token != END]

    expected = begin(WORDS, len(WORDS))
    assert begin(Bytes(*WORDS.pieces), len(WORDS)) == begin(Short(*WORDS.pieces), len(WORDS)) == expected


def test_words_of_a_byte_level_tokenizer() -> None:
    """The real model's: every one of its tokens, decoded behind another, and none of the model's padding."""
    tokenizer = two_prompts.tokenizer()
    letter = tokenizer("a").input_ids
    texts = [tokenizer.decode([*letter, token])[1:] for token in range(len(tokenizer))]
    special = set(tokenizer.all_special_ids)
    expected = {i for i, text in enumerate(texts) if text.startswith(" ") and i not in special}
    assert begin(tokenizer, len(tokenizer) + 100) == expected
    assert 20_000 < len(expected) < 40_000


def test_words_of_sentencepiece() -> None:
    """Whose decoder takes the first blank of a text away."""
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "</s>", "▁", "▁a", "a", "▁the", "the", "<0x41>", ".", "▁▁"]
    own = tokenizers.Tokenizer(tokenizers.models.Unigram([(p, -1.0) for p in pieces], unk_id=0, byte_fallback=False))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    own.decoder = tokenizers.decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, unk_token="<unk>", eos_token="</s>")
    assert {pieces[i] for i in begin(tokenizer, len(pieces))} == {"▁", "▁a", "▁the", "▁▁"}


def test_words_are_worked_out_once_and_forgotten_with_their_tokenizer() -> None:
    decoded: list[Any] = []

    class Counted(Pieces):
        """Counts what is decoded."""

        def decode(self, ids: Sequence[int], **how: bool) -> str:
            decoded.append(ids)
            return super().decode(ids)

    tokenizer = Counted(*WORDS.pieces)
    one = starts(midstep.Model(len(WORDS), tokenizer))
    count = len(decoded)
    assert starts(midstep.Model(len(WORDS), tokenizer)) is one
    assert len(decoded) == count > 0
    known = len(midstep_nudging.words._KNOWN)
    del tokenizer
    gc.collect()
    assert len(midstep_nudging.words._KNOWN) == known - 1


# Every third begins a word.
TINY = Pieces(*("a" if i == 1 else f" {i}" if i % 3 == 0 else f"{i}" for i in range(97)))


@one_thread()
def answer(sampling: midstep.Sampling = GREEDY, **asked: Any) -> list[int]:
    options = Options(max_tokens=two_prompts.TOKENS * 3, seed=3, ignore_eos=True, sampling=sampling)
    return generate(two_prompts.model(), TINY, PROMPT, options, adapters=two_prompts.worn(), **asked)[0].ids


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.7])
def test_it_equals_two_caches_and_a_loop(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With texts instead of numbers; both have their turns."""
    monkeypatch.setattr(two_prompts, "TOKENS", 24)
    turns: list[bool] = []

    def said(t: int, rows: list[Tensor]) -> int:
        base, nudger = (int(row.argmax()) for row in rows)
        sure = bool(rows[0].max().exp() >= threshold)
        nudged = bool(turns and turns[-1])
        turns.append(not sure if not nudged else not (TINY.pieces[nudger][0] == " " and (base == nudger or sure)))
        return nudger if turns[-1] else base

    expected = looped(said, (None, PROMPT), ("instruct", OTHER))
    assert len(set(turns)) == 2
    monkeypatch.setattr(two_prompts, "TOKENS", 8)
    assert answer(nudging={"nudger": "lora:instruct", "threshold": threshold, "prompt": list(OTHER)}) == expected


ASKED: dict[str, Any] = {"nudger": "lora:instruct", "prompt": list(OTHER)}


def test_a_base_that_wants_to_end_is_nudged_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token that the sure base drew is made the end token in turn; the answer never ends in the base's turn."""
    model = two_prompts.model()
    threshold, ended = 0.2, 0
    for end in dict.fromkeys(answer(nudging={**ASKED, "threshold": threshold})):
        turns: list[bool] = []

        def said(t: int, rows: list[Tensor], end: int = end, turns: list[bool] = turns) -> int:
            base, nudger = (int(row.argmax()) for row in rows)
            sure = bool(rows[0].max().exp() >= threshold)
            word = TINY.pieces[nudger][0] == " " and nudger != end
            back = word and (base == nudger or sure) if turns and turns[-1] else sure
            turns.append(base == end or not back)
            return nudger if turns[-1] else base

        monkeypatch.setattr(two_prompts, "TOKENS", 24)
        expected = looped(said, (None, PROMPT), ("instruct", OTHER))
        if end in expected:
            expected, ended = expected[: expected.index(end) + 1], ended + 1
            assert turns[len(expected) - 1]
        monkeypatch.setattr(model.generation_config, "eos_token_id", end)
        options = Options(max_tokens=24, sampling=GREEDY)
        given: dict[str, Any] = {"adapters": two_prompts.worn(), "nudging": {**ASKED, "threshold": threshold}}
        with one_thread():
            found = generate(model, TINY, PROMPT, options, **given)[0]
        assert found.ids == expected
        assert found.finish_reason == ("stop" if end in expected else "length")
    assert ended > 0


def test_a_grammar_holds_in_both_turns() -> None:
    """Here: an even token after an odd one, and the other way round."""
    odd = torch.arange(97) % 2 == 1
    options = Options(
        max_tokens=20, mask=lambda logits, ids: logits.masked_fill(odd if len(ids) % 2 else ~odd, -INF), seed=5
    )
    with one_thread():
        asked: dict[str, Any] = {"nudging": ASKED, "adapters": two_prompts.worn()}
        (found,) = generate(two_prompts.model(), TINY, PROMPT, options, **asked)
    assert [token % 2 for token in found.ids] == [(i + 1) % 2 for i in range(len(found.ids))]
    assert found.report is not None
    assert found.report.methods["nudging"].changed > 0


@pytest.mark.parametrize("sampling", [GREEDY, midstep.Sampling(temperature=0.9)], ids=["greedy", "sampled"])
def test_threshold_0_gives_the_unguided_answer(sampling: midstep.Sampling) -> None:
    """Of a base that cannot end."""
    asked = {"nudger": "lora:instruct", "threshold": 0.0}
    assert answer(sampling, nudging=asked) == answer(sampling, min_p={"p": 0.0})


def test_its_companion() -> None:
    def made(adapter: str | None = None, **params: Any) -> Any:
        model = midstep.Model(97, two_prompts.tokenizer(), adapter=adapter, adapters=("instruct",))
        return dict(Nudging.prepare(Nudging.Params.model_validate(params), PROMPT, model).companions)

    messages = [{"role": "user", "content": "Hi"}]
    chat = two_prompts.tokenizer().apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert made(nudger="lora:instruct") == {"nudger": Companion(PROMPT, "lora:instruct")}
    assert made(nudger="base", prompt=messages) == {"nudger": Companion(tuple(chat["input_ids"]), "base")}
    assert made("instruct", nudger="base") == {"nudger": Companion(PROMPT, "base")}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, r"nudging\.nudger.*field required"),
        ({"nudger": "instruct"}, r"nudging\.nudger = 'instruct'"),
        ({"nudger": "lora:art"}, "'art', which is not loaded; loaded: 'instruct', 'math': load it"),
        ({"nudger": "base"}, "the request itself and nudger would be one row: both wear no adapter.*another prompt"),
        ({"nudger": "lora:instruct", "threshold": 1.1}, "less than or equal to 1"),
        ({"nudger": "lora:instruct", "threshold": float("nan")}, "(?i)nan|finite"),
        ({"nudger": "lora:instruct", "prompt": []}, "empty prompt"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_way_out(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        answer(nudging=asked)


def test_without_a_tokenizer_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"it needs a tokenizer.*without --skip-tokenizer-init"):
        two_prompts.answer(nudging={"nudger": "lora:instruct"})
