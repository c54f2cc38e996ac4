"""What the V2 runner cannot do in Triton's interpreter, and what stands in for it in these tests.

- Its grammar kernel dies ("mask has unsupported dtype"): `mend` puts the same in torch. Tests only.
- Its kernel for top-k and top-p dies: only rows that midstep draws have a top-k or top-p here, where it is midstep's.
- Its rejection sampler dies: no test runs speculative decoding on V2; requests are refused there before it runs.
"""

from __future__ import annotations

import os
from typing import Any

import torch


def mend() -> None:
    """Put the grammar's mask in torch, where Triton is interpreted; without speculation."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    import interpreter  # noqa: F401  which is faster with it
    from vllm.v1.worker.gpu.structured_outputs import StructuredOutputsWorker

    def apply_grammar_bitmask(self: Any, logits: Any, batch: Any, ids: Any, bitmask: Any) -> None:
        row = {name: i for i, name in enumerate(batch.req_ids)}
        for line, name in zip(bitmask, ids, strict=False):
            bits = (torch.from_numpy(line.copy())[:, None] >> torch.arange(32)) & 1
            allowed = bits.bool().flatten()[: logits.shape[1]]
            logits[int(batch.cu_num_logits_np[row[name]])].masked_fill_(~allowed, -torch.inf)

    StructuredOutputsWorker.apply_grammar_bitmask = apply_grammar_bitmask
