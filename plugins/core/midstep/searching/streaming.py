"""Makes an engine of anything that streams token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..prompts import decoded
from .boundary import Boundary
from .engine import Piece, Prefix, Sample


@dataclass(frozen=True)
class Call:
    """One prefix to be continued; its fields are those of `Engine.extend`."""

    ids: tuple[int, ...]
    seed: int
    max_tokens: int
    until: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Any] = field(default_factory=dict)
    logprobs: bool = False
    share: bool = False

    def stops(self, sampling: Mapping[str, Any]) -> list[str] | None:
        """Return the texts at which the engine ends the request: separators, and what `sampling` names as "stop"."""
        own = {**sampling, **self.sampling}.get("stop") or ()
        return [*self.until, *((own,) if isinstance(own, str) else own)] or None


class Streaming(ABC):
    """An engine that streams: a driver defines `stream`, and `text` or `decode`.

    Args:
        tokenizer: Hugging Face's; None: the engine knows the texts, and where a separator ends.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer

    @abstractmethod
    def stream(self, call: Call) -> AsyncIterator[Piece]:
        """Yield what is added, as it comes; when the iterator is closed, the request must end in the engine."""

    def extend(
        self,
        prefixes: Sequence[Prefix],
        *,
        seeds: Sequence[int],
        max_tokens: Sequence[int],
        until: Sequence[str] = (),
        sampling: Mapping[str, Any] | None = None,
        methods: Mapping[str, Any] | None = None,
        logprobs: bool = False,
        share: bool = False,
    ) -> list[Sample]:
        """Begin to continue each prefix, all at once; see `Engine.extend`."""
        begun = []
        for prefix, seed, most in zip(prefixes, seeds, max_tokens, strict=True):
            call = Call(prefix.ids, seed, most, tuple(until), sampling or {}, methods or {}, logprobs, share)
            boundary = None
            if until and self.tokenizer is not None:
                opened = prefix.ids[len(prefix.ids) - prefix.open :]
                boundary = Boundary(until, self._with_special, opened)
            begun.append(Sample(self.stream(call), most, boundary, len(prefix.ids)))
        return begun

    async def encode(self, prompt: str | Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Return the token ids of a text, or of a chat's messages."""
        if isinstance(prompt, str):
            return tuple(self.tokenizer.encode(prompt))
        made = self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
        return tuple(made)

    async def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _with_special(self, ids: Sequence[int]) -> str:
        return decoded(ids, self.tokenizer)
