"""The reference engine: a plain Hugging Face loop, the oracle of midstep's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import midstep

Mask = Callable[[Tensor, Sequence[int]], Tensor]
Worn = Mapping[str, Any]  # the models by what a request's companions wear


@dataclass(frozen=True)
class Answer:
    """One answer: its token ids, their text, why it ended, each token's own log-probability, and midstep's report."""

    ids: list[int]
    text: str
    finish_reason: str
    stop_reason: str | int | None
    logprobs: list[float]
    report: midstep.Report | None


@dataclass(frozen=True)
class Options:
    """What an engine's own sampling parameters would say.

    Args:
        mask: an engine's mask (grammar, allowed ids): logits [V] and the generated ids to masked logits [V].
        stop: texts that end the answer and are cut off it.
        bias: token id to what is added to its logit.
    """

    max_tokens: int = 16
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    bias: Mapping[int, float] = field(default_factory=dict)
    mask: Mask | None = None
    sampling: midstep.Sampling = field(default_factory=midstep.Sampling)


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    prompt: str | Sequence[int],
    options: Options | None = None,
    *,
    extra: Mapping[str, Any] | None = None,
    configuration: midstep.Configuration | None = None,
    adapters: Mapping[str, Any] | None = None,
    adapter: str | None = None,
    **methods: Any,
) -> list[Answer]:
    """Answer one prompt with a Hugging Face causal language model; return `options.n` answers.

    Args:
        model: a causal language model; its logits are read in float32.
        tokenizer: its tokenizer; None where `prompt`, a text or token ids, is the latter and no text is wanted.
        extra: midstep's entry as `midstep.request` makes it; `methods` is the short way.
        adapters: by the name that companions know it by, the model with that adapter merged into its weights.
        adapter: the name of the one that the request itself wears; None: the base.

    Raises:
        ValueError: the request is refused.
    """
    options, adapters = options or Options(), adapters or {}
    if adapter is not None and adapter not in adapters:
        raise ValueError(f"midstep: adapter = {adapter!r}; adapters names {sorted(adapters)}: add it there")
    worn = {"base": model, **{f"lora:{name}": merged for name, merged in adapters.items()}}
    worn["own"] = model if adapter is None else adapters[adapter]
    ids = tokenizer(prompt).input_ids if isinstance(prompt, str) else list(prompt)
    ends = model.generation_config.eos_token_id
    ends = () if ends is None or options.ignore_eos else tuple(ends) if isinstance(ends, list) else (ends,)
    about = midstep.Model(model.config.vocab_size, tokenizer, ends, adapter=adapter, adapters=tuple(adapters))
    asked = midstep.parse(midstep.request(**methods) if methods else extra, configuration)
    own: dict[str, Any] = {"seed": options.seed, "max_tokens": options.max_tokens}
    admission = midstep.admit(asked, ids, options.sampling, about, **own) if asked else None
    if admission is None:  # the engine's own draw has no meaning here; the same draw without any method stands for it
        admission = midstep.Admission((), options.sampling, tuple(ids), ends, **own)
    stamped = [admission.stamped(f"{i}", i) for i in range(options.n)]
    return [_answer(worn, tokenizer, one, options, asked is not None) for one in stamped]


def _answer(models: Worn, tokenizer: Any, admission: midstep.Admission, options: Options, reports: bool) -> Answer:
    own = admission, midstep.Companion(admission.prompt)
    entries, requests = zip(own, *midstep.shadows(admission), strict=True)
    pipeline = midstep.Pipeline(models["own"].device)
    ledger = midstep.Ledger(admission)
    ids: list[int] = []
    logprobs: list[float] = []
    finish: tuple[str, str | int | None] = ("length", None)
    for logits in _rows([models[request.wears] for request in requests], requests, ids):
        masked = _masked(logits, ids, admission, options)
        logprob = torch.log_softmax(logits, -1)
        at = torch.full((len(entries),), len(ids), device=logits.device)
        record = pipeline.run(masked, entries, range(len(entries)), at)
        ids.append(int(masked[0].argmax()))
        logprobs.append(float(logprob[0, ids[-1]]))
        events = record.events()
        for event in events:
            ledger.add(event)
        reason = midstep.reason(events[0]) if events else None
        text = tokenizer.decode(ids, skip_special_tokens=True) if options.stop else ""
        cut = next((s for s in options.stop if s in text), None)
        if ids[-1] in admission.ends and len(ids) > admission.sampling.min_tokens:
            finish = "stop", None
        elif cut is not None and len(ids) > admission.sampling.min_tokens:
            finish = "stop", cut
        elif reason is not None:
            finish = "stop", reason
        elif len(ids) < options.max_tokens:
            continue
        break
    text = tokenizer.decode(ids, skip_special_tokens=True) if tokenizer is not None else ""
    text = text[: text.index(finish[1])] if finish[1] in options.stop else text
    return Answer(ids, text, *finish, logprobs, ledger.report(len(ids)) if reports else None)


def _rows(models: Sequence[Any], requests: Sequence[midstep.Companion], ids: Sequence[int]) -> Iterator[Tensor]:
    """Yield the logits [requests, V] float32 for the prompts, and then for each id that the caller adds to `ids`."""
    fed, caches = [list(request.prompt) for request in requests], [None] * len(requests)
    while True:
        outputs = [
            model(torch.tensor([tokens], device=model.device), past_key_values=cache, use_cache=True)
            for model, tokens, cache in zip(models, fed, caches, strict=True)
        ]
        caches = [output.past_key_values for output in outputs]
        yield torch.cat([output.logits[:, -1].float() for output in outputs])
        fed = [[ids[-1]]] * len(requests)


def _masked(logits: Tensor, ids: Sequence[int], admission: midstep.Admission, options: Options) -> Tensor:
    """Apply what an engine applies before any plugin: the logit bias, and to the request's own row the masks."""
    logits = logits.clone()
    for token, bias in options.bias.items():
        logits[:, token] += bias
    if len(ids) < admission.sampling.min_tokens:
        logits[0, list(admission.ends)] = -torch.inf
    if options.mask:
        logits[0] = options.mask(logits[0], ids)
    return logits
