"""The scheduler's half of step rewards: it shows each request's new tokens to the watcher, and ends whom it names."""

from __future__ import annotations

import logging
from dataclasses import astuple
from functools import partial
from typing import Any

from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.request import RequestStatus

from midstep import Configuration
from midstep.watching.watched import REASON
from midstep.watching.watcher import Watcher

from . import support
from .lockstep import Lockstep
from .wire import STEPS, taken_watch

logger = logging.getLogger("vllm.midstep")


class Watching(Lockstep):
    """vLLM's scheduler, which also has steps judged. It is the watcher's hot loop: nothing here waits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watcher: Watcher | None = None
        try:
            self._configuration = support.configuration(self.vllm_config)
        except ValueError:  # the API process refuses every method, and says why
            self._configuration = Configuration()
        if self._configuration.rewards:
            self._watch()

    @property
    def watches(self) -> bool:
        """Say whether a request is watched."""
        return bool(self._watcher)

    def add_request(self, request: Any) -> None:
        """Take a request, and watch it where it asks for that."""
        watched = taken_watch(request)
        if watched is not None and request.request_id not in self.requests:
            try:
                self._watch().begin(request.request_id, watched)
            except Exception:  # the engine lives, and so does the request
                logger.exception("midstep: the steps of request %s are not judged", request.request_id)
        super().add_request(request)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Update the requests; what is new of their steps goes with their outputs."""
        if not self._watcher:
            return super().update_from_output(scheduler_output, model_runner_output)
        self._watcher.poll()
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        for output in (o for group in outputs.values() for o in group.outputs):
            if output.request_id in self._watcher:
                news = [astuple(one) for one in self._watcher.news(output.request_id)]
                if news:
                    output.kv_transfer_params = {**(output.kv_transfer_params or {}), STEPS: news}
        self._forget()
        return outputs

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        """End requests; nobody judges them any more."""
        ended = super().finish_requests(request_ids, finished_status)
        self._forget()
        return ended

    def shutdown(self) -> None:
        """End the rewards' processes with the engine."""
        if self._watcher is not None:
            self._watcher.close()
        super().shutdown()

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *args: Any, **kwargs: Any
    ) -> tuple[list[int], bool]:
        """Look at the tokens that are kept; end the request where there is a verdict, unless it ends by itself."""
        tokens, stopped = super()._update_request_with_output(request, new_token_ids, *args, **kwargs)
        key, watcher = request.request_id, self._watcher
        if watcher is None or key not in watcher:
            return tokens, bool(stopped)
        try:
            watcher.see(key, tokens)
        except Exception:
            logger.exception("midstep: the steps of request %s are not judged any more", key)
            watcher.end(key)
            return tokens, bool(stopped)
        if not stopped and watcher.ended(key) is not None:
            watcher.applied(key)
            request.status = RequestStatus.FINISHED_STOPPED
            request.stop_reason = REASON
            stopped = True
        return tokens, bool(stopped)

    def _watch(self) -> Watcher:
        if self._watcher is None:
            load = partial(cached_tokenizer_from_config, self.vllm_config.model_config)
            self._watcher = Watcher(self._configuration, load)
        return self._watcher

    def _forget(self) -> None:
        """Let the watcher forget whom the engine has forgotten."""
        if self._watcher:
            for key in self._watcher.keys() - self.requests.keys():
                self._watcher.end(key)
