"""A stand-in for the CPU build of sgl-kernel, in torch: what SGLang 0.5.23 imports from it by name.

`torch.ops.sgl_kernel.convert_weight_packed` must stay unregistered: its absence keeps SGLang on the torch path.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

__version__ = "0.0.0+standin"


def assign_req_to_token_pool_cpu(
    rows: Tensor, req_to_token: Tensor, start: Tensor, end: Tensor, out_cache_loc: Tensor, pool_len: int
) -> None:
    """Write the next `end - start` cache locations of each row into its place in the pool."""
    done = 0
    for row, first, last in zip(rows.tolist(), start.tolist(), end.tolist(), strict=True):
        count = last - first
        req_to_token[row, first:last] = out_cache_loc[done : done + count].to(req_to_token.dtype)
        done += count


def assign_extend_cache_locs_cpu(
    rows: Tensor, req_to_token: Tensor, start: Tensor, end: Tensor, out_cache_loc: Tensor, pool_len: int
) -> None:
    """Read the cache locations `start` to `end` of each row out of the pool."""
    done = 0
    for row, first, last in zip(rows.tolist(), start.tolist(), end.tolist(), strict=True):
        count = last - first
        out_cache_loc[done : done + count] = req_to_token[row, first:last].to(out_cache_loc.dtype)
        done += count


def assign_draft_cache_locs_contiguous_cpu(
    rows: Tensor, req_to_token: Tensor, seq_lens: Tensor, out_cache_loc: Tensor, *rest: int
) -> None:
    """Read the same number of cache locations behind each row's end out of the pool."""
    count = out_cache_loc.numel() // max(1, rows.numel())
    for i, (row, length) in enumerate(zip(rows.tolist(), seq_lens.tolist(), strict=True)):
        locations = req_to_token[row, length : length + count]
        out_cache_loc[i * count : (i + 1) * count] = locations.to(out_cache_loc.dtype)


def fill_bonus_tokens_cpu(accept_tokens: Tensor, accept_lens: Tensor, bonus_tokens: Tensor, accept_stride: int) -> None:
    """Copy each row's last accepted token."""
    last = torch.arange(accept_lens.numel()) * accept_stride + accept_lens.long() - 1
    bonus_tokens.copy_(accept_tokens.view(-1)[last].to(bonus_tokens.dtype))


def fill_accept_out_cache_loc_cpu(accept_index: Tensor, out_cache_loc: Tensor, accept_out_cache_loc: Tensor) -> None:
    """Copy the cache locations of accepted tokens, leaving out the -1 entries."""
    accepted = accept_index.view(-1)
    accepted = accepted[accepted > -1]
    accept_out_cache_loc[: accepted.numel()] = out_cache_loc[accepted.long()].to(accept_out_cache_loc.dtype)


def _missing(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} is not in this stand-in (tests/standins/sgl_kernel)")

    refuse.__name__ = name
    return refuse


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Let any other kernel be imported; it raises when called."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _missing(name)


# Every Qwen-VL processor imports sglang.srt.models.qwen3_5, which names these operators at import.
for _name in (
    "fused_sigmoid_mul_cpu",
    "fused_qk_gemma_rmsnorm_cpu",
    "fused_qk_gemma_rmsnorm_with_gate_cpu",
    "fused_qkvzba_split_reshape_cat_contiguous_cpu",
):
    setattr(torch.ops.sgl_kernel, _name, _missing(_name))


def _without_pinning(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        return make(*args, **kwargs)

    return made


# SGLang's LoRA layers ask for pinned memory without asking whether there is a device to pin it for.
if not torch.cuda.is_available():
    setattr(torch.Tensor, "pin_memory", lambda self, device=None: self)  # noqa: B010
    for _name in ("tensor", "empty", "zeros"):
        setattr(torch, _name, _without_pinning(getattr(torch, _name)))
