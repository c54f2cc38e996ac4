"""Admits requests in the API process: the one place where a request can still be refused with a text (HTTP 400)."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from midstep import Admission, Configuration, Model, Prepared, Sampling, admit, parse
from midstep.errors import shown
from midstep.methods import Method
from midstep.requests import Asked

from . import support
from .wire import ADMISSION

KEY = "midstep"


class Desk:
    """Admits the requests of one InputProcessor.

    Args:
        config: vLLM's configuration of the engine.
        tokenizer: the model's, or None.
        off: midstep is switched off: only requests that ask for it are looked at, and refused.
    """

    def __init__(self, config: Any, tokenizer: Any, *, off: bool = False) -> None:
        self.config = config
        self.configuration = Configuration()
        self.reason = None if off else support.engine_reason(config)
        if self.reason is None and not off:
            self.configuration = support.configuration(config)
            if not support.loaded(config):
                self.reason = f"this engine was started without it; add --logits-processors {support.PROCESSOR}"
        model = config.model_config
        self.model = Model(model.get_vocab_size(), tokenizer, max_length=model.max_model_len)

    def admit(self, request: Any) -> None:
        """Replace the SamplingParams of an EngineCoreRequest by a copy that carries its admission, where it has one.

        Raises:
            ValueError: the request is refused.
        """
        extra: Mapping[str, Any] = request.sampling_params.extra_args or {}
        if ADMISSION in extra:
            value = shown(extra[ADMISSION])
            raise ValueError(f"midstep: {ADMISSION} = {value} is midstep's own; send {KEY!r}, see midstep.request()")
        named = any(isinstance(key, str) and key.partition(".")[0] == KEY for key in extra)
        if not named and not self.configuration.defaults.methods and not self.configuration.defaults.trace:
            return
        admission = self._admit(request, extra, named)
        rest = {k: v for k, v in extra.items() if k.partition(".")[0] != KEY}
        own = copy.copy(request.sampling_params)
        if admission is not None:
            # V1 makes a torch.Generator of a seed, and V2 draws from numpy's own generator where there is none
            seed = 0 if self.config.use_v2_model_runner else None
            rest[ADMISSION] = {"admission": admission.wire(), "seed": seed}
        own.extra_args = rest or None
        request.sampling_params = own

    def _admit(self, request: Any, extra: Mapping[str, Any], named: bool) -> Admission | None:
        asked = parse(extra, self.configuration)
        if asked is None:
            return None
        params, config = request.sampling_params, self.config
        reason = self.reason or support.request_reason(config, request, self.configuration.limits.n)
        if reason is not None and (asked.methods.keys() <= asked.by_default):
            if named and asked.trace:
                raise ValueError(f"midstep: trace: {reason}")
            return None

        def serves(method: type[Method], prepared: Prepared) -> str | None:
            return support.method_reason(config, params, method, prepared)

        ends = support.ends(params)
        model = replace(self.model, ends=ends)
        if reason is not None:
            raise ValueError(f"midstep: {_first(asked)}: {reason}")
        prompt = request.prompt_token_ids or []
        admission = admit(asked, prompt, sampling(params), model, seed=params.seed, serves=serves)
        if admission is None:
            return None
        if params.structured_outputs is not None and not support.channel(config):
            # without the scheduler half a row can only end by its end token, which the grammar may forbid
            admission = replace(admission, on_error="continue")
        return admission if admission.seed is not None else replace(admission, seed=secrets.randbits(63))


def sampling(params: Any) -> Sampling:
    """Return what midstep takes over from vLLM's SamplingParams."""
    return Sampling(
        temperature=float(params.temperature),
        top_k=max(int(params.top_k), 0),
        top_p=float(params.top_p),
        min_p=float(params.min_p),
        repetition_penalty=float(params.repetition_penalty),
        presence_penalty=float(params.presence_penalty),
        frequency_penalty=float(params.frequency_penalty),
        min_tokens=int(params.min_tokens),
    )


def neutral(params: Any, admission: Admission) -> Any:
    """Return a copy of stamped SamplingParams that leaves the row to midstep: nothing is applied twice."""
    own = copy.copy(params)
    # a cached property over temperature and seed
    own.__dict__.pop("sampling_type", None)
    own.temperature, own.top_p, own.top_k, own.min_p = 1.0, 1.0, 0, 0.0
    own.presence_penalty, own.frequency_penalty, own.repetition_penalty = 0.0, 0.0, 1.0
    own.seed = params.extra_args[ADMISSION]["seed"]
    own.extra_args = {**params.extra_args, ADMISSION: admission.wire()}
    return own


def process_inputs(original: Callable[..., Any], self: Any, *args: Any, off: bool = False, **kwargs: Any) -> Any:
    """Stand around InputProcessor.process_inputs: the request has its prompt's token ids and its own parameters now."""
    request = original(self, *args, **kwargs)
    if request.sampling_params is None:
        return request
    desk = self.__dict__.get("midstep")
    if desk is None:
        desk = self.midstep = Desk(self.vllm_config, self.tokenizer, off=off)
    desk.admit(request)
    return request


def _first(asked: Asked) -> str:
    return min(name for name in asked.methods if name not in asked.by_default)
