"""Compiles every kernel when an engine starts, so that no request waits for a compiler."""

from __future__ import annotations

import json
import logging
import time

import torch

from .admission import admit
from .methods import LogitsProcessor, Model, Sampler, StopController
from .operation import uses_kernels
from .pipeline import Pipeline
from .plugins import catalogue
from .requests import parse
from .sampling import Sampling

logger = logging.getLogger("midstep")

PROMPT = (0, 0)


def warm_up(device: torch.device, vocabulary: int) -> None:
    """Run every installed method once, with its defaults, on rows of zeros; nothing to do where no kernel is used.

    A method that has no defaults, or whose `prepare` wants more than a vocabulary, is left for its first request.

    Args:
        device: of the logits.
        vocabulary: columns of the logits, the engine's padding included.
    """
    if not uses_kernels(torch.empty(0, device=device)):
        return
    started = time.perf_counter()
    pipeline = Pipeline(device, max_length=64)
    for name, method in catalogue().methods.items():
        if ":" in name or not issubclass(method, StopController | LogitsProcessor | Sampler):
            continue
        for trace in (False, True):  # a traced row goes through the stages one by one
            try:
                asked = parse({"midstep": json.dumps({"methods": {name: {}}, "trace": trace})})
                assert asked is not None
                admission = admit(asked, PROMPT, Sampling(), Model(vocabulary), seed=0, max_tokens=8)
                assert admission is not None
                logits = torch.zeros(1, vocabulary, device=device)
                pipeline.run(logits, [admission.stamped(name)], [0], torch.zeros(1, dtype=torch.int64, device=device))
            except Exception as error:  # a stranger's code, or one that wants more than this: the engine must start
                logger.debug("%s is not warmed up: %s", name, error)
            pipeline.release([name])
    logger.info("midstep: kernels compiled in %.1f s", time.perf_counter() - started)
