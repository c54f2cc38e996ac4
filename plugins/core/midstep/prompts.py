"""Prompts that a companion may have: given in the request, or the request's own without a part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import shown
from .methods import Model

Message = Mapping[str, Any]


def encoded(given: str | Sequence[int] | Sequence[Message], model: Model) -> tuple[int, ...]:
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


def without(prompt: Sequence[int], text: str, model: Model) -> tuple[int, ...]:
    """Return `prompt` without each place where `text` stands in it.

    What is left is tokenised anew, so that it is the prompt that its own text would have given. Where the tokens of a
    prompt are not those of its text, every token that touches the place is taken out instead.

    Raises:
        ValueError: the text is empty, or is not in the prompt, or nothing else is, or the server has no tokenizer.
    """
    tokenizer = _tokenizer(model, text)
    whole = _decoded(prompt, tokenizer)
    if not text or text not in whole:
        raise ValueError(f"{shown(text)} is not in the prompt; name a text that stands there word for word")
    if _encoded(whole, tokenizer) == list(prompt):
        left = _encoded(whole.replace(text, ""), tokenizer)
    else:
        left = _cut(prompt, text, whole, tokenizer)
    if not left:
        raise ValueError(f"nothing of the prompt is left without {shown(text)}; name a part of it")
    return tuple(left)


def _cut(prompt: Sequence[int], text: str, whole: str, tokenizer: Any) -> list[int]:
    ends = [len(_decoded(prompt[: i + 1], tokenizer)) for i in range(len(prompt))]
    touched, at = set[int](), whole.find(text)
    while at >= 0:
        touched |= {i for i, end in enumerate(ends) if end > at and ((ends[i - 1] if i else 0) < at + len(text))}
        at = whole.find(text, at + len(text))
    return [token for i, token in enumerate(prompt) if i not in touched]


def _decoded(ids: Sequence[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _encoded(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _tokenizer(model: Model, given: object) -> Any:
    if model.tokenizer is None:
        raise ValueError(f"{shown(given)} needs a tokenizer, and this server has none; send token ids")
    return model.tokenizer
