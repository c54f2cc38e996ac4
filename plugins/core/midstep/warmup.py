"""Compiles every kernel when an engine starts, so that no request waits for a compiler."""

from __future__ import annotations

import json
import logging
import time

import torch

from .admission import Admission, admit
from .companions import Shadow, shadows
from .configuration import Limits
from .methods import LogitsProcessor, Method, Model, Sampler, StopController
from .operation import uses_kernels
from .pipeline import Pipeline
from .plugins import catalogue
from .requests import parse
from .sampling import Sampling
from .testing.examples import Letters, usual

logger = logging.getLogger("midstep")

PROMPT = (0, 0)
# Triton compiles a kernel once for columns that begin at a multiple of 16 bytes and once for all others.
ROWS = (1, 4)
# A call that compiles is no slow method's.
PATIENT = Limits(call_seconds=3600.0)
OWN = Sampling(top_p=0.9)  # a row with cuts of its own runs fused without a rule too


def warm_up(device: torch.device, vocabulary: int) -> None:
    """Run every installed method, as it is usually asked for, on rows of zeros; not where no kernel is used.

    A method whose required parameters have no example, or that fails here, is left for its first request. One with
    companions is run on rows of either type, since it reads the engine's own.

    Args:
        device: of the logits.
        vocabulary: columns of the logits, the engine's padding included.
    """
    if not uses_kernels(torch.empty(0, device=device)):
        return
    started = time.perf_counter()
    pipeline = Pipeline(device, max_length=64, limits=PATIENT)
    for name, method in catalogue().methods.items():
        if ":" in name or not issubclass(method, StopController | LogitsProcessor | Sampler):
            continue
        for trace in (False, True):  # a traced row goes through the stages one by one
            for own in (OWN, Sampling()):
                for rows in ROWS:
                    try:
                        _run(pipeline, name, method, trace, own, rows, vocabulary)
                    except Exception as error:  # a stranger's code, or one that wants more: the engine must start
                        logger.debug("%s is not warmed up: %s", name, error)
                    pipeline.release(_keys(rows))
    logger.info("midstep: kernels compiled in %.1f s", time.perf_counter() - started)


def _run(
    pipeline: Pipeline, name: str, method: type[Method], trace: bool, own: Sampling, rows: int, vocabulary: int
) -> None:
    asked = parse({"midstep": json.dumps({"methods": {name: usual(method)}, "trace": trace})})
    assert asked is not None
    model = Model(vocabulary, tokenizer=Letters())
    admission = admit(asked, PROMPT, own, model, seed=0, max_tokens=8)
    assert admission is not None
    mains = [admission.stamped(key) for key in _keys(rows)]
    entries: list[Admission | Shadow] = [*mains, *(shadow for main in mains for shadow, _ in shadows(main))]
    for dtype in (torch.float32, torch.bfloat16) if len(entries) > rows else (torch.float32,):
        logits = torch.zeros(len(entries), vocabulary, dtype=dtype, device=pipeline.device)
        position = torch.zeros(len(entries), dtype=torch.int64, device=pipeline.device)
        pipeline.run(logits, entries, range(len(entries)), position)


def _keys(rows: int) -> list[str]:
    return [str(row) for row in range(rows)]
