"""The sampler seam: SGLang's sampler, with midstep's pipeline before its draw.

SGLang has applied its masks (min_new_tokens, grammar, logit bias) when the sampler is called. The pipeline leaves a row
with midstep at 0 for its token and -inf elsewhere, so SGLang draws that token. Rows without midstep are SGLang's.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import torch
from sglang.srt.layers import sampler as engine
from torch import Tensor

import midstep
from midstep import configuration
from midstep.slots import upload
from midstep.warmup import warm_up

from .channel import Told
from .steered import ON_BATCH, Rows, Steered

logger = logging.getLogger("midstep")

NAME = "midstep"


class Steering:
    """The pipeline of one sampler, and what it worked out for the batch that it saw last."""

    def __init__(self) -> None:
        self._pipeline: midstep.Pipeline | None = None
        self._rows: Rows | None = None
        self._live: dict[str, Steered] = {}
        self._failed = False
        self._warm = False

    def warm_up(self, logits: Tensor) -> None:
        """Compile the kernels at the first call of all, which is the engine's own at its start."""
        if not self._warm:
            self._warm = True
            warm_up(logits.device, logits.shape[1])

    def run(self, logits: Tensor, rows: Rows, positions: Tensor) -> Told:
        """Draw the rows with midstep in place; whatever goes wrong ends those rows and nothing else.

        Args:
            logits: [N, V], the engine's rows.
            positions: [N] of the tokens that were fed, counted from the start of each prompt.
        """
        began = time.perf_counter()
        try:
            pipeline = self._begin(rows, logits.device)
            position = positions.index_select(0, self._indices) + 1 - self._prompts
            record = pipeline.run(logits, self._entries, rows.indices, position)
        except Exception:
            if not self._failed:  # the first; more would flood the log
                logger.exception("midstep failed; the requests that use it end with midstep:internal:exception")
            self._failed = True
            record = None
        return Told(rows.mains, record, time.perf_counter() - began)

    def _begin(self, rows: Rows, device: torch.device) -> midstep.Pipeline:
        if self._pipeline is None:
            self._pipeline = midstep.Pipeline(
                device,
                limit=max(1024, 2 * rows.who[0].main.max_requests),
                max_length=rows.who[0].main.max_length,
                limits=configuration.current().limits,
            )
        if rows is not self._rows:
            self._release({one.admission.key for one in rows.mains}, self._pipeline)
            self._live.update((one.admission.key, one) for one in rows.mains)
            self._entries = [one.entry for one in rows.who]
            self._indices = upload(rows.indices, torch.int64, device)
            self._prompts = upload([one.prompt_length for one in rows.who], torch.int64, device)
            self._rows = rows
        return self._pipeline

    def _release(self, here: set[str], pipeline: midstep.Pipeline) -> None:
        """Forget the requests that the engine is done with; one that is still in a call keeps its memory."""
        ended = [key for key, one in self._live.items() if key not in here and one.gone()]
        pipeline.release(ended)
        for key in ended:
            del self._live[key]


def for_logprobs(logits: Tensor, rows: Rows) -> Tensor:
    """Return a copy of `logits` [N, V] for the returned logprobs: as SGLang would have them if midstep were not there.

    SGLang divides by the request's temperature, which it does not know any more, unless the request is greedy or the
    server is told to return the original ones.
    """
    copy = logits.clone()
    own = [one.main.admission.sampling for one in rows.who]
    heat = [1.0 if one.top_k == 1 else one.temperature or 1.0 for one in own]
    if engine.SGLANG_RETURN_ORIGINAL_LOGPROB or set(heat) == {1.0}:
        return copy
    indices = upload(rows.indices, torch.int64, logits.device)
    heated = copy.index_select(0, indices) / upload(heat, torch.float32, logits.device)[:, None]
    return copy.index_copy_(0, indices, heated.to(copy.dtype))


class Sampler(engine.Sampler):  # type: ignore[misc]
    """SGLang's sampler with midstep before it."""

    def __init__(self) -> None:
        super().__init__()
        self.steering = Steering()

    def forward(
        self,
        logits_output: Any,
        sampling_info: Any,
        return_logprob: bool,
        top_logprobs_nums: list[int],
        token_ids_logprobs: list[list[int]],
        positions: Tensor,
        *,
        logprob_logits: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        """Draw the next tokens, [N]; as SGLang's own."""
        self.steering.warm_up(logits_output.next_token_logits)
        rows: Rows | None = getattr(sampling_info, ON_BATCH, None)
        if rows is not None and rows.indices:
            logits = logits_output.next_token_logits
            if return_logprob:
                logprob_logits = for_logprobs(logits if logprob_logits is None else logprob_logits, rows)
            logits_output.auxiliary_device_output = self.steering.run(logits, rows, positions)
            if sampling_info.need_top_k_sampling and not rows.others_need_top_k:
                sampling_info = dataclasses.replace(sampling_info, need_top_k_sampling=False)
        if logprob_logits is not None:
            more["logprob_logits"] = logprob_logits
        drawn: Tensor = super().forward(
            logits_output, sampling_info, return_logprob, top_logprobs_nums, token_ids_logprobs, positions, **more
        )
        return drawn

    def _sample_from_probs(self, probs: Tensor, sampling_info: Any, positions: Tensor, simple: bool) -> Any:
        """Draw with torch where the server was started with `--sampling-backend midstep`, which SGLang cannot know."""
        if simple or engine.get_exec().kernel.sampling_backend != NAME:
            return super()._sample_from_probs(probs, sampling_info, positions, simple)
        drawn = engine.top_k_top_p_min_p_sampling_from_probs_torch(
            probs,
            sampling_info.top_ks,
            sampling_info.top_ps,
            sampling_info.min_ps,
            sampling_info.need_min_p_sampling,
            sampling_info.sampling_seed,
            positions,
            max_top_k=sampling_info.max_top_k,
        )
        return drawn, None


def register() -> None:
    """Offer the sampler as `midstep`, and under SGLang's own names: CPUs and deterministic mode allow no other."""
    for name in (*sorted(engine.BUILT_IN_SAMPLING_BACKENDS), NAME):
        engine.register_sampler_backend(name, Sampler)
