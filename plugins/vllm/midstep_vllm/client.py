"""The API process's half: it stamps each engine-side request, and keeps its ledger, so that a report exists however
the request ends: by its engine, by a stop string, or because the client went away.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from midstep import Admission, Ledger, metrics
from midstep.watching.watched import News

from .admission import KEY, stamped
from .errors import RefusedError
from .wire import ADMISSION, EVENTS, SECONDS, STEPS, unpack

logger = logging.getLogger("vllm.midstep")

KEPT = 4096
OURS = {EVENTS, SECONDS, STEPS}


class Account:
    """One engine-side request as its client sees it.

    Args:
        admission: stamped.
        siblings: the reports of all samples of the user's request, by sample; shared by its children.
        name: the user's id of the request.
        kept: the last reports of this process by name.
        model: the name under which the model is served.
    """

    def __init__(
        self,
        admission: Admission,
        siblings: dict[str, Any],
        name: str,
        kept: OrderedDict[str, dict[str, Any]],
        model: str,
    ) -> None:
        self.ledger = Ledger(admission)
        self.siblings = siblings
        self.name = name
        self.kept = kept
        self.model = model

    def note(self, events: Iterable[Sequence[Any]]) -> None:
        """Add what happened at the tokens of one output."""
        for event in events:
            self.ledger.add(unpack(self.ledger.admission.key, event))

    def close(self, generated: int) -> dict[str, Any]:
        """Return the reports of all samples that have ended; this one kept `generated` tokens."""
        report = self.ledger.report(generated)
        metrics.count(report, self.model)
        self.siblings[str(report.sample)] = report.model_dump(mode="json")
        self.kept[self.name] = self.siblings
        self.kept.move_to_end(self.name)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return dict(self.siblings)


def kept(processor: Any) -> OrderedDict[str, dict[str, Any]]:
    """Return the last reports of an OutputProcessor by the user's request id."""
    reports: OrderedDict[str, dict[str, Any]] = processor.__dict__.setdefault("midstep", OrderedDict())
    return reports


def add_request(
    original: Callable[..., Any],
    self: Any,
    request: Any,
    prompt: Any,
    parent_req: Any = None,
    request_index: int = 0,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Stand around OutputProcessor.add_request, which sees each child of n > 1 with its index, just before the engine.

    Raises:
        ValueError: the request names methods, but was not admitted.
    """
    params = request.sampling_params
    extra = (params.extra_args or {}) if params is not None else {}
    if KEY in extra:
        raise RefusedError(
            f"midstep: request {request.request_id!r} was not made by InputProcessor.process_inputs(), where methods "
            "are admitted; pass the prompt and the SamplingParams instead of an EngineCoreRequest"
        )
    if ADMISSION not in extra or request.request_id in self.request_states:
        original(self, request, prompt, parent_req, request_index, *args, **kwargs)
        return
    owner = request if parent_req is None else parent_req
    admission = Admission.unwire(extra[ADMISSION]["admission"])
    admission = admission.stamped(request.request_id, request_index, owner.request_id)
    original(self, request, prompt, parent_req, request_index, *args, **kwargs)
    request.sampling_params = stamped(params, admission)
    siblings = {} if parent_req is None else parent_req.__dict__.setdefault("midstep", {})
    account = Account(admission, siblings, owner.external_req_id, kept(self), extra[ADMISSION]["model"])
    self.request_states[request.request_id].midstep = account


def process_outputs(original: Callable[..., Any], self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand around OutputProcessor.process_outputs: take midstep's events out of the outputs."""
    parts = []
    for output in outputs:
        # most have nothing of ours, at every step
        if output.kv_transfer_params or output.finish_reason is not None:
            parts += _parts(self, output)
        else:
            parts.append(output)
    return original(self, parts, *args, **kwargs)


def make_request_output(
    original: Callable[..., Any],
    self: Any,
    new_token_ids: Any,
    pooling_output: Any,
    finish_reason: Any,
    stop_reason: Any,
    kv_transfer_params: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Stand around RequestState.make_request_output: every final output, whoever ended the request, has its report."""
    account = None if finish_reason is None else self.__dict__.get("midstep")
    if account is not None:
        try:
            reports = account.close(self.detokenizer.num_output_tokens())
            kv_transfer_params = {**(kv_transfer_params or {}), KEY: reports}
        except Exception:
            logger.exception("midstep: request %s has no report", self.request_id)
    return original(
        self, new_token_ids, pooling_output, finish_reason, stop_reason, kv_transfer_params, *args, **kwargs
    )


def _observe(told: Sequence[Any]) -> None:
    for seconds in told[1:]:
        metrics.observe(seconds, told[0])


def _note(processor: Any, output: Any) -> None:
    """Take what is midstep's out of an output, and note it."""
    rest = dict(output.kv_transfer_params)
    events, steps = rest.pop(EVENTS, None), rest.pop(STEPS, ())
    _observe(rest.pop(SECONDS, ()))
    output.kv_transfer_params = rest or None
    account = getattr(processor.request_states.get(output.request_id), "midstep", None)
    if account is not None:
        account.note(events or ())
        account.ledger.judged(News(*one) for one in steps)


def _parts(processor: Any, output: Any) -> list[Any]:
    """Note what is midstep's of an output; cut one that a method ended in two, tokens and end.

    The detokenizer takes the last token of a finished `stop` output for a stop token and would swallow its text.
    """
    if output.kv_transfer_params and not OURS.isdisjoint(output.kv_transfer_params):
        _note(processor, output)
    if output.finish_reason is None or not str(output.stop_reason).startswith(KEY + ":") or not output.new_token_ids:
        return [output]
    from msgspec.structs import replace
    from vllm.v1.engine import EngineCoreOutput

    end = EngineCoreOutput(
        request_id=output.request_id,
        new_token_ids=[],
        finish_reason=output.finish_reason,
        stop_reason=output.stop_reason,
        kv_transfer_params=output.kv_transfer_params,
        ec_transfer_params=output.ec_transfer_params,
        trace_headers=output.trace_headers,
        num_nans_in_logits=output.num_nans_in_logits,
        spec_decode_metrics=output.spec_decode_metrics,
    )
    tokens = replace(
        output,
        finish_reason=None,
        stop_reason=None,
        kv_transfer_params=None,
        ec_transfer_params=None,
        spec_decode_metrics=None,
    )
    return [tokens, end]
