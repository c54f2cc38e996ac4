"""The body of a request: OpenAI's, and what a search needs beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..configuration import Limits
from ..errors import explain
from ..methods import Params
from ..searching import Engine

# What a person writes for midstep, and `limits.json_bytes` bounds.
OWN = ("search", "reward", "selector", "separator", "patience", "methods")
# What goes to the engine with each call, by the names that OpenAI and the engines have for it.
SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("stop_token_ids", "allowed_token_ids", "ignore_eos"),
)
# Labels for the provider's own accounts: nothing depends on them.
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
# What some clients send where nobody asked for it.
NEUTRAL: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "echo": False,
    "best_of": 1,
}


class AskedPatience(Params):
    """How long a request waits for its reward, never beyond the server's own patience."""

    timeout: float | None = Field(None, gt=0, description="Seconds that one try may take.")
    tries: int | None = Field(None, ge=1, description="Tries before an answer counts as not scored.")
    gone: Literal["fail", "drop"] | float | None = Field(
        None, description="Not scored: the search fails, the answer is dropped, or it has this score."
    )


class StreamOptions(BaseModel):
    """OpenAI's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    include_usage: bool = False


class Asked(BaseModel):
    """What both routes take."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    search: dict[str, dict[str, Any] | None] = Field(description="Exactly one search with its parameters.")
    reward: str | None = Field(None, description="A reward of this server.")
    selector: dict[str, dict[str, Any] | None] | None = Field(None, description="One selector with its parameters.")
    budget: int | None = Field(None, ge=1, description="Tokens of engine and reward together.")
    separator: str | list[str] = Field("\n\n", min_length=1, description="What ends a step.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="One seed, one answer; none: a fresh one.")
    patience: AskedPatience = AskedPatience()
    methods: dict[str, dict[str, Any] | None] = Field({}, description="midstep methods for every token.")
    trace: bool = Field(False, description="Whether the answer carries the tree.")
    n: int = Field(1, ge=1, description="The best distinct answers, the one of the largest weight first.")
    max_tokens: int | None = Field(None, ge=1, description="Tokens of one answer at most.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same, as newer clients call it.")
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: list[int] | None = None
    allowed_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    add_special_tokens: bool | None = Field(None, description="Whether the prompt gets the model's own.")

    @property
    def sampling(self) -> dict[str, Any]:
        """Return what the engine is to be asked with."""
        return {name: getattr(self, name) for name in SAMPLING if getattr(self, name) is not None}

    @property
    def most(self) -> int | None:
        """Return the most tokens of one answer, by either of the two names."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class ChatBody(Asked):
    """Of `/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(Asked):
    """Of `/completions`; one prompt, since one request is one search."""

    prompt: str | list[int] = Field(min_length=1)


def read(raw: bytes, kind: type[ChatBody] | type[CompletionBody], limits: Limits) -> ChatBody | CompletionBody:
    """Return a checked body.

    Raises:
        ValueError: it is not JSON, or says something that is not allowed; the text says what is.
    """
    sent = _object(raw)
    if not isinstance(sent, dict):
        raise ValueError(f"the body is {type(sent).__name__}, not an object; see OpenAI's /v1/chat/completions")
    body = {key: value for key, value in sent.items() if value is not None and key not in IGNORED}
    body = {key: value for key, value in body.items() if key not in NEUTRAL or NEUTRAL[key] != value}
    try:
        size = len(json.dumps({key: body[key] for key in OWN if key in body}))
    except RecursionError as error:
        raise ValueError("the body is nested too deep; parameters of a search are flat") from error
    if size > limits.json_bytes:
        raise ValueError(f"{', '.join(OWN)}: {size} bytes; allowed on this server: {limits.json_bytes}")
    if "search" not in body:
        raise ValueError('no "search"; name one as in "search": {"best_of_n": {"n": 4}}, or send this to /v1')
    stray = sorted(body.keys() - kind.model_fields.keys())
    if stray:
        taken = ", ".join(kind.model_fields)
        raise ValueError(f"{', '.join(stray)}: a search does not take this; leave it out. It takes: {taken}")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise ValueError(explain(error)) from error


async def question(asked: Asked, engine: Engine, ids: Sequence[int]) -> str:
    """Return the prompt as the reward gets it: its text, or of a chat the text of the last message."""
    if isinstance(asked, CompletionBody):
        return asked.prompt if isinstance(asked.prompt, str) else await engine.decode(ids)
    assert isinstance(asked, ChatBody)
    content = asked.messages[-1].get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _object(raw: bytes) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON's")

    try:
        sent = json.loads(raw, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    return sent
