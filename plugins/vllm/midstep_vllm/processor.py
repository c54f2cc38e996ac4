"""The logits processor, one class for both of vLLM's model runners: it draws the tokens of midstep's rows."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2LogitsProcessor

from midstep import Pipeline
from midstep.configuration import Limits
from midstep.record import Event
from midstep.warmup import warm_up

from . import seams, support
from .rows import Gathered, V1Rows, V2Rows
from .wire import failed
from .worker import CURRENT, Shift

logger = logging.getLogger("vllm.midstep")

LIVE = 1024


class LogitsProcessor(V1LogitsProcessor, V2LogitsProcessor):  # type: ignore[misc]
    """Runs midstep's pipeline over its rows of a call and leaves the others alone.

    V1 calls it with (config, device, pin_memory), V2 with (config, request state).
    """

    def __init__(self, vllm_config: Any, *runner: Any) -> None:
        v2 = len(runner) == 1
        device = runner[0].device if v2 else runner[0]
        try:
            limits = support.configuration(vllm_config).limits
        except ValueError:  # the API process refuses every method, and says why
            limits = Limits()
        self.rows: V1Rows | V2Rows = V2Rows(runner[0]) if v2 else V1Rows(device)
        self.pipeline = Pipeline(
            device,
            limit=max(LIVE, 4 * vllm_config.scheduler_config.max_num_seqs),
            max_length=vllm_config.model_config.max_model_len,
            limits=limits,
            ends_by_token=not support.channel(vllm_config),
        )
        self._failures = 0
        warm_up(device, vllm_config.model_config.get_vocab_size())

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError where a request names methods in a process in which midstep does not admit requests."""
        if "midstep" in (sampling_params.extra_args or {}) and not seams.is_wrapped(seams.ADMIT):
            raise ValueError("midstep: its general plugin is not loaded; add midstep to VLLM_PLUGINS, or unset it")

    def is_argmax_invariant(self) -> bool:
        """Say that greedy rows need this processor too (V1)."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows of the V1 runner."""
        assert isinstance(self.rows, V1Rows)
        if batch_update is not None:
            self.rows.update(batch_update)
        self._release()

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a request into a slot of the V2 runner; say whether it is midstep's."""
        assert isinstance(self.rows, V2Rows)
        return self.rows.add(req_idx, sampling_params)

    def apply_staged_writes(self) -> None:
        """Free what has ended, once per step (V2)."""
        self._release()

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Draw the tokens of midstep's rows, in place; whatever fails here ends those rows, never the engine."""
        if not self.rows:
            return logits
        shift = CURRENT.get(None)
        if shift is None:  # a worker that `register` never reached
            logger.error("midstep's rows end: its general plugin is not loaded in this worker")
            return logits
        gathered, began = None, time.perf_counter()
        try:
            gathered = self.rows.gather(len(logits), ctx)
            if gathered is not None:
                self._draw(logits, gathered, shift)
        except Exception:
            self._fail(shift, gathered)
        if shift.told:
            shift.seconds += time.perf_counter() - began
        return logits

    def _draw(self, logits: Tensor, gathered: Gathered, shift: Shift) -> None:
        admissions = [shift.admissions[key] for key in gathered.keys]
        record = self.pipeline.run(logits, admissions, gathered.rows, gathered.position, gathered.fed)
        shift.told.append(record.events)

    def _fail(self, shift: Shift, gathered: Gathered | None) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.exception("midstep failed; the rows of this call end, the engine goes on")
        keys = self.rows.keys() if gathered is None else gathered.keys
        shift.told.append(partial(_all_failed, keys))

    def _release(self) -> None:
        shift = CURRENT.get(None)
        if shift is None:
            return
        for key in shift.ended():
            self.rows.release(key)
            self.pipeline.release([key])


def _all_failed(keys: list[str] | tuple[str, ...]) -> list[Event]:
    return [failed(key) for key in keys]
