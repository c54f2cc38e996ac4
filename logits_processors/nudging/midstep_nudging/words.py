"""Which tokens begin a word, worked out once for each tokenizer, on the host."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import midstep
from midstep.prompts import decoded

from .reference import BITS

_KNOWN: WeakKeyDictionary[Any, dict[int, tuple[int, ...]]] = WeakKeyDictionary()


def starts(model: midstep.Model) -> tuple[int, ...]:
    """Return which tokens begin a word, as numbers of BITS bits: bit i of number j stands for token BITS j + i.

    A token begins a word where the tokenizer decodes it, behind a letter, to a text that begins with a blank: that is
    " the" of a byte-level tokenizer and "▁the" of SentencePiece. A special token begins none.
    """
    try:
        known = _KNOWN.setdefault(model.tokenizer, {})
    except TypeError:  # it cannot be referred to weakly, or not be hashed: worked out for each request
        known = {}
    if model.vocabulary not in known:
        known[model.vocabulary] = _packed(_begins(model.tokenizer, model.vocabulary), model.vocabulary)
    return known[model.vocabulary]


def _begins(tokenizer: Any, vocabulary: int) -> list[int]:
    """Return the tokens that begin a word.

    Tokens whose own pieces begin with the same character are alike, so one of each is decoded: some hundreds instead of
    a hundred thousand, which would hold up a server for a second.
    """
    ids = range(min(vocabulary, len(tokenizer)) if hasattr(tokenizer, "__len__") else vocabulary)
    letter = list(tokenizer("a", add_special_tokens=False).input_ids)[-1]
    alone = len(decoded([letter], tokenizer))
    special = set(getattr(tokenizer, "all_special_ids", ()))
    pieces = list(tokenizer.convert_ids_to_tokens(list(ids))) if hasattr(tokenizer, "convert_ids_to_tokens") else []
    alike: dict[str, bool] = {}
    found = []
    for token in ids:
        if token in special:
            continue
        # some leave special tokens out: then nothing lines up
        first = (pieces[token] if len(pieces) == len(ids) else decoded([token], tokenizer)) or ""
        first = first[:1].decode("latin-1") if isinstance(first, bytes) else first[:1]
        if first not in alike:
            alike[first] = decoded([letter, token], tokenizer)[alone:].startswith(" ")
        if alike[first]:
            found.append(token)
    return found


def _packed(tokens: list[int], vocabulary: int) -> tuple[int, ...]:
    words = [0] * -(-vocabulary // BITS)
    for token in tokens:
        words[token // BITS] |= 1 << token % BITS
    return tuple(words)
