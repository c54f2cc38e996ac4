"""Admits requests in the tokenizer process, where the prompt's ids, the parameters and the tokenizer are known.

Only ValueError is raised: SGLang turns it into HTTP 400 with its text.
"""

from __future__ import annotations

import copy
import json
import secrets
from functools import partial
from typing import Any

from sglang.srt.managers.io_struct import GenerateReqInput

import midstep
from midstep.errors import shown

from . import refusals, worn
from .entry import BESIDE, ENTRY, OURS, names_midstep, without
from .translation import adapters_of, model_of, neutralise, sampling_of


class Pending:
    """An admitted request on its way to its engine-side requests, which SGLang sends one after the other.

    Args:
        adapters: the ids of those that its companions wear, by name.
    """

    def __init__(self, admission: midstep.Admission, adapters: dict[str, str]) -> None:
        self.admission = admission
        self.adapters = adapters
        self.samples = 0
        self.group = secrets.token_hex(8)

    def stamped(self, request_id: str) -> midstep.Admission:
        """Return the admission of the next sample. The key is new: a client may use one request id twice."""
        index, self.samples = self.samples, self.samples + 1
        return self.admission.stamped(f"{request_id}.{secrets.token_hex(4)}", index, self.group)


class Gate:
    """Decides which requests use midstep.

    Args:
        configuration: the server's own settings.
        problem: why no method can be served, or None.
    """

    def __init__(self, configuration: midstep.Configuration, problem: str | None) -> None:
        self.configuration = configuration
        self.problem = problem

    def refuse_code(self, manager: Any, asked: Any, *args: Any, **kwargs: Any) -> None:
        """BEFORE TokenizerManager._validate_one_request: no code travels over the wire."""
        if getattr(asked, "custom_logit_processor", None):
            raise ValueError(refusals.PICKLE)

    def admit(self, original: Any, manager: Any, asked: Any, *args: Any, **kwargs: Any) -> Any:
        """AROUND TokenizerManager._create_tokenized_object: admit what SGLang itself has accepted."""
        tokenized = original(manager, asked, *args, **kwargs)
        if isinstance(asked, GenerateReqInput):
            params = tokenized.sampling_params
            custom = {} if params.custom_params is None else params.custom_params
            if not isinstance(custom, dict) or any(key in custom for key in OURS):
                wrong = f"custom_params = {shown(custom)}"
                if isinstance(custom, dict):
                    wrong = f"custom_params.{next(key for key in OURS if key in custom)}"
                raise ValueError(f"midstep: {wrong} is not allowed; send an object as midstep.request() makes it")
            admission = self._admit(manager, asked, tokenized, custom)
            rest: dict[str, Any] = without(custom)
            if admission is not None:
                if admission.drawn:
                    neutralise(params)
                if any(use.companions for use in admission.uses):  # they have to fit the context too
                    params.max_new_tokens = admission.max_tokens
                rest[ENTRY] = Pending(admission, _worn(manager, admission))
            params.custom_params = rest or None
        return tokenized

    def _admit(self, manager: Any, asked: Any, tokenized: Any, custom: dict[str, Any]) -> midstep.Admission | None:
        try:
            wanted = midstep.parse(custom, self.configuration)
        except ValueError:
            raise
        except Exception as error:  # whatever a client can send is his error, never the server's
            raise ValueError(f"midstep: the entry cannot be read: {type(error).__name__}: {error}") from error
        if wanted is None:
            return None
        params, n = tokenized.sampling_params, asked.sampling_params.get("n") or 1
        reason = (
            self.problem
            or refusals.by_server(manager.server_args)
            or refusals.by_request(manager.server_args, tokenized)
            or refusals.too_many(n, self.configuration.limits.n)
        )
        if reason is not None and not wanted.methods:
            if names_midstep(custom):
                raise ValueError(f"midstep: {reason}")
            return None
        by_method = partial(refusals.by_method, manager.server_args, custom)
        admission = midstep.admit(
            wanted,
            list(tokenized.input_ids or ()),
            sampling_of(manager, asked, params),
            model_of(manager, asked, params),
            seed=params.sampling_seed,
            max_tokens=params.max_new_tokens,
            limits=self.configuration.limits,
            serves=lambda method, prepared: reason or by_method(method, prepared),
            configuration=self.configuration,
            n=n,
        )
        apart = None if admission is None else refusals.apart(manager.server_args, admission)
        if apart is not None:
            raise ValueError(f"midstep: step_reward: {apart}")
        return admission


def _worn(manager: Any, admission: midstep.Admission) -> dict[str, str]:
    """Return the ids of the adapters that a request's companions name, by name."""
    names = midstep.companions.adapters(admission)
    return {name: one for name, one in adapters_of(manager).items() if name in names} if names else {}


def stamp(manager: Any, tokenized: Any, *args: Any, **kwargs: Any) -> None:
    """BEFORE TokenizerManager._send_one_request: give one engine-side request its key, sample index and seed.

    SGLang shares one set of parameters among n samples, and sends a request of no tokens ahead to fill its cache.
    """
    params = tokenized.sampling_params
    pending = (params.custom_params or {}).get(ENTRY) if params is not None else None
    if not isinstance(pending, Pending):
        return
    rest = {key: value for key, value in params.custom_params.items() if key != ENTRY}
    if params.max_new_tokens != 0:
        admission = pending.stamped(tokenized.rid)
        manager.rid_to_state[tokenized.rid].midstep = admission
        rest[ENTRY] = json.dumps(admission.wire())
        if any(use.companions for use in admission.uses):
            rest[BESIDE] = pending.adapters
            worn.hold(manager, manager.rid_to_state[tokenized.rid], pending.adapters)
    tokenized.sampling_params = copy.copy(params)
    tokenized.sampling_params.custom_params = rest or None


def stamp_all(manager: Any, tokenized: list[Any], *args: Any, **kwargs: Any) -> None:
    """BEFORE TokenizerManager._send_batch_request: stamp each."""
    for one in tokenized:
        stamp(manager, one)
