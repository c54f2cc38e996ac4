"""The contrasts' cases: rows moved away from a companion each, and drawn from or written."""

from __future__ import annotations

import torch
from cases import Case, Make, column, draws, logits
from torch import Tensor


def moved(*, shut: bool = False, drawn: bool = True) -> Make:
    """Return a case of one companion per row, in the engine's own type.

    Args:
        shut: every weight is 0, so that no companion is read.
        drawn: drawn at once, and not written.
    """

    def make(rows: int, vocabulary: int, device: str) -> Case:
        from midstep import guided, noise
        from midstep.contrast import contrasted

        beside = logits(rows, vocabulary, torch.float32, device, seed=1)
        at = torch.arange(rows, device=device)
        weights = column(rows, device, *([0.0] if shut else [0.5, 1.5]))[:, None]
        floor = column(rows, device, -torch.inf)
        heat, taken = column(rows, device, 1.0, 0.8), draws(rows, device)

        def run(x: Tensor) -> Tensor:
            n = len(x)
            row = x, at[:n], beside, at[:n, None], weights[:n], floor[:n]
            return guided.draw(*row, heat[:n], *(c[:n] for c in taken)).token if drawn else guided.contrasted(*row)

        def define(x: Tensor) -> Tensor:
            n = len(x)
            found = contrasted(x, [beside[:n]], weights[:n], floor[:n])
            return noise.draw(found / heat[:n, None], *(c[:n] for c in taken)) if drawn else found

        written = 0 if drawn else rows * vocabulary * 4
        return Case(run, define, reads=(0 if shut else beside.nbytes) + written)

    return make


def nudged(rows: int, vocabulary: int, device: str) -> Case:
    """Return nudging, each row with its turn; the row whose turn it is is written."""
    from midstep_nudging import kernel, reference

    beside = logits(rows, vocabulary, torch.float32, device, seed=1)
    words = torch.arange(-(-vocabulary // reference.BITS), device=device) * 2654435761 % (1 << reference.BITS)
    mode = column(rows, device, reference.BASE, reference.NUDGE, reference.NUDGE, dtype=torch.int64)
    threshold, ends = column(rows, device, 0.0, 0.4, 1.0), column(rows, device, 2, dtype=torch.int64)[:, None]
    taken = beside, mode, threshold, ends, words.expand(rows, -1).contiguous()
    return Case(
        lambda x: kernel.nudge(x, *(c[: len(x)] for c in taken)),
        lambda x: reference.nudge(x, *(c[: len(x)] for c in taken)),
        reads=beside.nbytes + rows * vocabulary * 4,
    )


def m3id_weights(rows: int, vocabulary: int, device: str) -> Case:
    """Return M3ID's weights; they are made of the row's statistics, which have a case of their own."""
    from midstep_m3id import kernel, reference

    columns = (
        column(rows, device, 20.0, 25.0),
        column(rows, device, 22.0, 25.5),
        column(rows, device, 50, 400, dtype=torch.int64),
        column(rows, device, 0.02),
        column(rows, device, 0, 1, dtype=torch.int64),
        column(rows, device, 0.3),
        column(rows, device, 0.1),
        column(rows, device, 10.0),
    )
    return Case(
        lambda x: kernel.weigh(*(c[: len(x)] for c in columns)),
        lambda x: reference.weigh(*(c[: len(x)] for c in columns)),
        logits=False,
    )
