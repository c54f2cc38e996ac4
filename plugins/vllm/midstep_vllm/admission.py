"""Admits requests in the API process: the one place where a request can still be refused with a text (HTTP 400)."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from midstep import Admission, Configuration, Model, Prepared, Sampling, admit, companions, parse
from midstep.errors import shown
from midstep.methods import Method
from midstep.requests import Asked

from . import adapters, groups, support
from .errors import refusing
from .wire import ADMISSION, WATCH

KEY = "midstep"


class Desk:
    """Admits the requests of one InputProcessor.

    Args:
        config: vLLM's configuration of the engine.
        tokenizer: the model's, or None.
        known: the adapters that its engine has.
        off: midstep is switched off: only requests that ask for it are looked at, and refused.
    """

    def __init__(self, config: Any, tokenizer: Any, known: adapters.Adapters, *, off: bool = False) -> None:
        self.config = config
        self.adapters = known
        self.configuration = Configuration()
        self.reason = "the server runs with MIDSTEP=off; unset it and restart" if off else support.engine_reason(config)
        if self.reason is None:
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
        asked = self.ask(extra)
        if asked is None and not names(extra):
            return
        admission = None if asked is None else self._admit(request, asked, names(extra))
        rest = {key: value for key, value in extra.items() if not names({key: value})}
        own = copy.copy(request.sampling_params)
        if admission is not None:
            # V1 makes a torch.Generator of a seed, and V2 draws from numpy's own generator where there is none
            seed = 0 if self.config.use_v2_model_runner else None
            name = self.config.model_config.served_model_name
            worn = self.adapters.plain(companions.adapters(admission))
            rest[ADMISSION] = {"admission": admission.wire(), "seed": seed, "model": name, adapters.ADAPTERS: worn}
        own.extra_args = rest or None
        request.sampling_params = own

    def ask(self, extra: Mapping[str, Any]) -> Asked | None:
        """Return what extra_args ask for, with the server's defaults; None for nothing.

        Raises:
            ValueError: they ask for something that does not exist, or that this engine cannot serve.
        """
        for own in (ADMISSION, WATCH):
            if own in extra:
                value = shown(extra[own])
                raise ValueError(f"midstep: {own} = {value} is midstep's own; send {KEY!r}, see midstep.request()")
        defaults = self.configuration.defaults
        if not names(extra) and not defaults.methods and not defaults.trace:
            return None
        asked = parse(extra, self.configuration)
        return None if asked is None else _unless(self.reason, asked, names(extra))

    def _admit(self, request: Any, asked: Asked, named: bool) -> Admission | None:
        params, config = request.sampling_params, self.config
        if _unless(support.request_reason(config, request, self.configuration.limits.n), asked, named) is None:
            return None

        def serves(method: type[Method], prepared: Prepared) -> str | None:
            companions = prepared.companions and groups.companions_reason(config, request)
            return companions or support.method_reason(config, request, method, prepared)

        own = None if request.lora_request is None else request.lora_request.lora_name
        model = replace(self.model, ends=support.ends(params), adapter=own, adapters=self.adapters.names())
        prompt = request.prompt_token_ids or []
        admission = admit(
            asked,
            prompt,
            sampling(params),
            model,
            seed=params.seed,
            max_tokens=params.max_tokens,
            limits=self.configuration.limits,
            serves=serves,
            configuration=self.configuration,
            n=params.n,
        )
        if admission is None:
            return None
        if admission.watch is not None:
            lone = support.samples_reason(config, admission.watch)
            if lone is not None:
                raise ValueError(f"midstep: step_reward: {lone}")
        reason = groups.group_reason(config, request, admission, len(self.adapters.names()))
        if reason is not None:
            guided = ", ".join(use.name for use in admission.uses if use.companions)
            raise ValueError(f"midstep: {guided}: {reason}")
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


def stamped(params: Any, admission: Admission) -> Any:
    """Return a copy of admitted SamplingParams for one engine-side request.

    A request that midstep draws is left to it; of one that it only watches, vLLM's own parameters stay as they are.
    """
    own = _neutral(params, replace(admission, watch=None)) if admission.drawn else copy.copy(params)
    if not admission.drawn:
        own.extra_args = {key: value for key, value in own.extra_args.items() if key != ADMISSION} or None
    if admission.watch is not None:
        own.extra_args = {**(own.extra_args or {}), WATCH: admission.watch.wire()}
    return own


def _neutral(params: Any, admission: Admission) -> Any:
    """Return a copy of SamplingParams that leaves the row to midstep: nothing is applied twice."""
    own = copy.copy(params)
    # a cached property over temperature and seed
    own.__dict__.pop("sampling_type", None)
    own.temperature, own.top_p, own.top_k, own.min_p = 1.0, 1.0, 0, 0.0
    own.presence_penalty, own.frequency_penalty, own.repetition_penalty = 0.0, 0.0, 1.0
    own.max_tokens = admission.max_tokens
    own.seed = params.extra_args[ADMISSION]["seed"]
    worn = params.extra_args[ADMISSION][adapters.ADAPTERS]
    wire = {**admission.wire(), **({adapters.ADAPTERS: worn} if worn else {})}
    own.extra_args = {**params.extra_args, ADMISSION: wire}
    return own


def process_inputs(original: Callable[..., Any], self: Any, *args: Any, off: bool = False, **kwargs: Any) -> Any:
    """Stand around InputProcessor.process_inputs: the request has its prompt's token ids and its own parameters now."""
    request = original(self, *args, **kwargs)
    if request.lora_request is not None:
        adapters.of(self).learn(request.lora_request)
    if request.sampling_params is not None:
        with refusing():
            _desk(self, off).admit(request)
    return request


def generate(original: Callable[..., Any], self: Any, prompt: Any, sampling_params: Any, *args: Any, **kw: Any) -> Any:
    """Stand around AsyncLLM.generate: refuse before a stream has begun, as long as HTTP can still say 400."""
    with refusing():
        _desk(self.input_processor).ask(getattr(sampling_params, "extra_args", None) or {})
    return original(self, prompt, sampling_params, *args, **kw)


def to_beam_search_params(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around the conversion of an HTTP request to beam search, which drops vllm_xargs."""
    if names(self.vllm_xargs or {}):
        with refusing():
            raise ValueError("midstep: use_beam_search = true; beam search draws no tokens: send n and a temperature")
    return original(self, *args, **kwargs)


def names(extra: Mapping[Any, Any]) -> bool:
    """Say whether extra_args hold an entry of midstep's."""
    return any(isinstance(key, str) and key.partition(".")[0] == KEY for key in extra)


def _desk(processor: Any, off: bool = False) -> Desk:
    desk: Desk | None = processor.__dict__.get("midstep")
    if desk is None:
        desk = processor.midstep = Desk(processor.vllm_config, processor.tokenizer, adapters.of(processor), off=off)
    return desk


def _unless(reason: str | None, asked: Asked, named: bool) -> Asked | None:
    """Return `asked` where there is no reason against it; None where only the server's defaults are lost."""
    if reason is None:
        return asked
    own = [name for name in asked.methods if name not in asked.by_default]
    if own or (named and (asked.trace or asked.draw)):
        raise ValueError(f"midstep: {min(own, default='trace' if asked.trace else 'draw')}: {reason}")
    return None
