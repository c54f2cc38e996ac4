"""Prompts that a companion may have: given in the request, or made of the request's own.

A method's parameters are `without` and `instead`, or a prefix; they are read here, alike for every method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from .errors import shown
from .methods import Model

Text = Annotated[str, Field(min_length=1)]
Message = dict[str, Any]
Prompt = Text | list[int] | list[Message]
Part = Text | Message
Wears = Annotated[str, Field(pattern="^(own|base|lora:.+)$")]
Span = tuple[int, int]

WITHOUT = (
    "Text of the prompt, or a message of its chat, or several, that the other prompt does not have; this or `instead`."
)
INSTEAD = "The other prompt: text, token ids or messages; this or `without`."

CONTEXT, STRETCH = 8, 16  # tokens that are decoded before, and in one go with, a token whose end is looked for


def encoded(given: str | Sequence[int] | Sequence[Mapping[str, Any]], model: Model) -> tuple[int, ...]:
    """Return the token ids of a prompt as a request gives it.

    Args:
        given: a text, token ids, or a list of messages, which goes through the model's chat template.

    Raises:
        ValueError: it is empty, or a text where the server has no tokenizer, or no chat template for messages.
    """
    if not given:
        raise ValueError(f"{shown(given)} is an empty prompt; send a text, token ids or messages")
    if isinstance(given, str):
        return tuple(_tokenizer(model, given)(given).input_ids)
    if all(isinstance(part, int) for part in given):
        return tuple(given)  # type: ignore[arg-type]
    tokenizer = _tokenizer(model, given)
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"{shown(given)} are messages, and the model has no chat template; send a text or token ids")
    try:
        found = tokenizer.apply_chat_template(list(given), add_generation_prompt=True, tokenize=True, return_dict=True)
    except Exception as error:  # a template may raise anything about messages that it does not know
        raise ValueError(f"{shown(given)} do not fit the chat template: {type(error).__name__}: {error}") from error
    return tuple(found["input_ids"])


def other(
    prompt: Sequence[int],
    model: Model,
    *,
    without: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
    instead: str | Sequence[int] | Sequence[Mapping[str, Any]] | None = None,
) -> tuple[int, ...]:
    """Return the prompt that a request names as the other one, in one of two ways.

    Raises:
        ValueError: it names none, or in both ways, or what `encoded` and `taken_out` refuse.
    """
    if (without is None) == (instead is None):
        both = "both" if without is not None else "none"
        raise ValueError(
            f'{both} of without and instead is given; send exactly one: "without": a text that stands in the prompt, '
            'or "instead": another prompt'
        )
    if instead is not None:
        return encoded(instead, model)
    assert without is not None
    parts = [without] if isinstance(without, str | Mapping) else without
    return taken_out(prompt, [part if isinstance(part, str) else _rendered(part, model) for part in parts], model)


def _rendered(message: Mapping[str, Any], model: Model) -> str:
    """Return what the chat template makes of one message: what a second one adds behind the first."""
    tokenizer = _tokenizer(model, message)
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"{shown(message)} is a message, and the model has no chat template; name a text of the prompt"
        )
    try:
        once, twice = (
            str(tokenizer.apply_chat_template([message] * count, add_generation_prompt=False, tokenize=False))
            for count in (1, 2)
        )
    except Exception as error:  # a template may raise anything about messages that it does not know
        raise ValueError(
            f"{shown(message)} does not fit the chat template by itself: {type(error).__name__}: {error}; name its text"
        ) from error
    if not twice.startswith(once) or twice == once:
        raise ValueError(f"{shown(message)} cannot be told apart in this chat template; name its text")
    return twice[len(once) :]


def taken_out(prompt: Sequence[int], texts: Sequence[str], model: Model) -> tuple[int, ...]:
    """Return `prompt` without each place where one of `texts` stands in it.

    What is left is tokenised anew, so that it is the prompt that its own text would have given. Where the tokens of a
    prompt are not those of its text, every token that touches a place is taken out instead.

    Raises:
        ValueError: there is no text, or one is not in the prompt, or nothing else is, or the server has no tokenizer.
    """
    if not texts:
        raise ValueError("without = [] names no text; name one that stands in the prompt, or send instead")
    tokenizer = _tokenizer(model, texts[0])
    whole = decoded(prompt, tokenizer)
    places = _merged(place for text in texts for place in _places(text, whole))
    if _encoded(whole, tokenizer) == list(prompt):
        edges = [0, *(edge for place in places for edge in place), len(whole)]
        left = _encoded("".join(whole[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)), tokenizer)
    else:
        spans = _spans(prompt, whole, tokenizer)
        left = [
            token
            for token, (start, end) in zip(prompt, spans, strict=True)
            if not any(start < b and end > a for a, b in places)
        ]
    if not left:
        raise ValueError(f"nothing of the prompt is left without {shown(texts)}; name a part of it")
    return tuple(left)


def behind(
    prompt: Sequence[int], prefix: str | Sequence[int], model: Model, *, before: str | None = None
) -> tuple[int, ...]:
    """Return `prompt` with `prefix` put in front, or in front of the last place of `before` in it.

    In front is behind the token that the tokenizer begins each text with, where it has one and the prompt begins with
    it. A text is followed by a blank, and tokenised with what comes behind it; where the tokens of a prompt are not
    those of its text, and for a prefix of token ids, the prompt's tokens stay and the prefix comes before the token in
    which the place is.

    Raises:
        ValueError: the prefix is empty, `before` is not in the prompt, or a text is given and there is no tokenizer.
    """
    if not prefix:
        raise ValueError(f"prefix = {shown(prefix)} is empty; send a text or token ids")
    if model.tokenizer is None and not isinstance(prefix, str) and before is None:
        return (*prefix, *prompt)
    tokenizer = _tokenizer(model, before if before is not None else prefix)
    first = _first(prompt, tokenizer)
    rest = list(prompt[len(first) :])
    whole = decoded(rest, tokenizer)
    at = 0 if before is None else _places(before, whole)[-1][0]
    if isinstance(prefix, str) and _encoded(whole, tokenizer) == rest:
        return (*first, *_encoded(f"{whole[:at]}{prefix} {whole[at:]}", tokenizer))
    ids = _encoded(f"{prefix} ", tokenizer) if isinstance(prefix, str) else prefix
    i = sum(end <= at for _, end in _spans(rest, whole, tokenizer)) if at else 0
    return (*first, *rest[:i], *ids, *rest[i:])


def _places(text: str, whole: str) -> list[Span]:
    """Return where `text` stands in `whole`, one place after the other."""
    found: list[Span] = []
    at = whole.find(text) if text else -1
    while at >= 0:
        found.append((at, at + len(text)))
        at = whole.find(text, at + len(text))
    if not found:
        raise ValueError(f"{shown(text)} is not in the prompt; name a text that stands there word for word")
    return found


def _merged(places: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in sorted(places):
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _spans(prompt: Sequence[int], whole: str, tokenizer: Any) -> list[Span]:
    """Return where each token's text is in `whole`; the tokens of one letter all have that letter.

    A few tokens are decoded at a time behind those before them: what a token is may depend on its neighbours.
    """
    starts, before, base = [0], 0, 0
    for i in range(len(prompt)):
        if i % STRETCH == 0:
            before = max(0, i - CONTEXT)
            base = starts[i] - _length(decoded(prompt[before:i], tokenizer))
        starts.append(base + _length(decoded(prompt[before : i + 1], tokenizer)))
    if starts[-1] != _length(whole):
        raise ValueError("the prompt's tokens do not line up with its text; send token ids instead")
    spans, end = [], starts[-1] + 1
    for start, after in zip(reversed(starts[:-1]), reversed(starts), strict=False):
        end = after if after > start else end
        spans.append((start, end))
    return spans[::-1]


def _length(text: str) -> int:
    """Return the length of a text without the unfinished letter at its end."""
    return len(text.rstrip("\ufffd"))


def _first(prompt: Sequence[int], tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that the tokenizer begins each text with, where the prompt begins with them."""
    first = tuple(tokenizer("").input_ids)
    return first if first == tuple(prompt[: len(first)]) else ()


def decoded(ids: Sequence[int], tokenizer: Any) -> str:
    """Return the text of token ids, special tokens included, as it stands in a text."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _encoded(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _tokenizer(model: Model, given: object) -> Any:
    if model.tokenizer is None:
        raise ValueError(f"{shown(given)} needs a tokenizer, and this server has none; send token ids")
    return model.tokenizer
