"""midstep in SGLang programs: `s += midstep_sglang.gen("answer", min_p={"p": 0.1}, max_tokens=64)`.

`sgl.gen` takes a fixed list of parameters, and SGLang's interpreter hands exactly that list to the backend. A
generation's methods therefore ride among its stop token ids, which pass untouched through forks and threads, and
`Endpoint` takes them out again. Any other backend fails on them, instead of answering without the methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import sglang
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.ir import SglSamplingParams

import midstep

from . import programs


@dataclass(frozen=True)
class Methods:
    """midstep's entry of one generation."""

    entry: Mapping[str, Any]


def gen(
    name: str | None = None,
    *,
    methods: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | list[str] | None = None,
    stop_token_ids: list[int] | None = None,
    stop_regex: str | list[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    regex: str | None = None,
    json_schema: str | None = None,
    seed: int | None = None,
    **named: Any,
) -> Any:
    """Return a generation, as `sgl.gen` does, with midstep's methods.

    Args:
        methods: the entry that `midstep.request` makes, where more than methods is to be said.
        seed: of the noise; `sgl.gen` has none.
        named: methods by name, each with its parameters; `min_p` is the method here.

    Raises:
        ValueError: a method is not installed here, or a parameter is not allowed.
    """
    entry: dict[str, Any] = {**(methods or {}), **(midstep.request(**named) if named else {})}
    return sglang.gen(
        name,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        n=n,
        stop=stop,
        stop_token_ids=[*(stop_token_ids or ()), Methods({"custom_params": entry, "sampling_seed": seed})],
        stop_regex=stop_regex,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        ignore_eos=ignore_eos,
        return_logprob=return_logprob,
        regex=regex,
        json_schema=json_schema,
    )


@dataclass
class _Sampling(SglSamplingParams):  # type: ignore[misc]
    """SGLang's sampling parameters with what `gen` added."""

    added: Mapping[str, Any] | None = None

    def to_srt_kwargs(self) -> dict[str, Any]:
        """Return the sampling parameters of a request."""
        return {**super().to_srt_kwargs(), **{k: v for k, v in (self.added or {}).items() if v is not None}}


class Endpoint(RuntimeEndpoint):  # type: ignore[misc]
    """SGLang's endpoint, for programs that use `midstep_sglang.gen` or `search`; plain `sgl.gen` works as ever."""

    def generate(self, s: Any, sampling_params: Any) -> Any:
        """Answer one generation: its text and its meta_info, with midstep's report, or a search's result."""
        wish = programs.wished(sampling_params)
        if wish is not None:
            return programs.answered(self, s, sampling_params, wish)
        return super().generate(s, _taken_out(sampling_params))

    def generate_stream(self, s: Any, sampling_params: Any) -> Iterator[Any]:
        """Answer one generation piece by piece; the last piece's meta_info has midstep's report.

        A search's answer is one piece: until it is done, nobody knows which text is the best.
        """
        wish = programs.wished(sampling_params)
        if wish is not None:
            yield programs.answered(self, s, sampling_params, wish)
            return
        yield from super().generate_stream(s, _taken_out(sampling_params))


def _taken_out(params: Any) -> Any:
    ids = params.stop_token_ids or ()
    added = {k: v for one in ids if isinstance(one, Methods) for k, v in one.entry.items()}
    own = {f.name: getattr(params, f.name) for f in fields(params)}
    return _Sampling(**{**own, "stop_token_ids": [one for one in ids if not isinstance(one, Methods)]}, added=added)
