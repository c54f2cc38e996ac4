"""The stage of the contrasts, where their kernels run: a row is moved, and drawn from where nothing comes after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .batch import Group
from .call import Call
from .contrast import Guide, columns
from .guards import EMPTY, NAN
from .operation import uses_kernels
from .rows import Rows
from .stages import reshape, sample
from .statistics import statistics


def guides(call: Call, group: Group) -> bool:
    """Say whether the group's method is a contrast that the kernels do."""
    return isinstance(group.method, Guide) and uses_kernels(call.logits)


def draws(call: Call, group: Group) -> bool:
    """Say whether the group's rows are drawn as they are moved: nothing comes after, and nobody wants to see them."""
    return group.last and not call.batch.traced and guides(call, group)


def guide(call: Call, group: Group) -> None:
    """Let one contrast move its rows."""
    from . import guided

    moves = _weighed(call, group)
    own = group.of(torch.arange(len(call.position), device=call.position.device))
    others, index = call.companions.where(group)
    if not draws(call, group):
        reshape(call, group, guided.contrasted(call.logits, own, others, index, *moves))
        return
    batch = call.batch
    weights, floor, scale = moves
    warmth, seed = group.of(batch.sampling["temperature"]), group.of(batch.seed)
    how = warmth, seed, group.of(call.at), group.of(batch.sampled)
    found = guided.draw(call.logits, own, others, index, weights, floor, *how, scale)
    call.blame(group, torch.where(found.empty, EMPTY, 0))
    call.change(group, found.token != found.plain)
    call.token = group.put(call.token, found.token)
    drawn = torch.zeros_like(call.end) if call.drawn is None else call.drawn
    call.drawn = group.put(drawn, torch.ones_like(found.empty))
    call.drawn_rows += len(own)


def sample_rest(call: Call) -> Tensor:
    """Choose the tokens of the rows that were not drawn yet; returns what `stages.sample` does."""
    if call.drawn is None:
        return sample(call)
    if call.drawn_rows == len(call.position):
        return call.logits
    token = call.token
    tempered = sample(call)
    call.token = torch.where(call.drawn, token, call.token)
    return tempered


def _weighed(call: Call, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights [r, K], the floor and the scale [r]; a row with a weight that is no number has none."""
    method, names = group.method, list(group.companions)
    assert isinstance(method, Guide)

    def weigh(some: Tensor, rows: Rows) -> Mapping[str, Tensor]:
        def own() -> Tensor:
            mine = group.of(call.logits)
            return mine if len(some) == len(mine) else mine.index_select(0, some)

        contrast = method.contrast(lambda: statistics(own()), rows)
        return dict(zip(("weights", "floor", "scale"), columns(contrast, names, rows, own), strict=True))

    position = group.of(call.position)
    nothing = torch.zeros(len(position), len(names), device=position.device)
    bottom = torch.full_like(position, -torch.inf, dtype=torch.float32)
    fallback = {"weights": nothing, "floor": bottom, "scale": torch.ones_like(bottom)}
    found = call.guarded(group, torch.arange(len(position), device=position.device), fallback, weigh)
    wrong = ~(found["weights"].isfinite().all(-1) & found["scale"].isfinite())
    call.blame(group, torch.where(wrong, NAN, 0))
    return torch.where(wrong[:, None], 0.0, found["weights"]), found["floor"], found["scale"]
