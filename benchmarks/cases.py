"""Every kernel of midstep with arguments to time it on, its definition in torch, and how alike the two must be.

A case is made for a batch of logits. Nothing in it waits for the device, so all of it can go into a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CONTEXT = 1024  # tokens of prompt and answer, for methods that look back
WINDOW = 2048  # DeepConf's
# A mask may differ at tokens that lie on the threshold, so many of a row.
ON_THRESHOLD = 4
Found = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One kernel on one batch.

    Args:
        kernel: called with the logits; so is `definition`, whose results on the first rows are compared.
        reads: bytes that must be read and written at least, beside the logits' own.
        logits: whether it reads the logits at all.
    """

    kernel: Callable[[Tensor], Found]
    definition: Callable[[Tensor], Found]
    reads: int = 0
    logits: bool = True


Make = Callable[[int, int, str], Case]


def logits(rows: int, vocabulary: int, dtype: torch.dtype, device: str, seed: int) -> Tensor:
    """Make rows as models give them: a broad bulk, and some tokens far above it."""
    random = torch.Generator(device=device).manual_seed(seed)
    bulk = torch.randn(rows, vocabulary, device=device, generator=random) * 2.2
    best = torch.randint(vocabulary, (rows, 64), device=device, generator=random)
    bulk.scatter_add_(1, best, torch.rand(rows, 64, device=device, generator=random) ** 3 * 20)
    return bulk.to(dtype)


def column(rows: int, device: str, *values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return [rows] of values in turn: each row has its own."""
    every = torch.tensor(values, dtype=dtype, device=device)
    return every.repeat(-(-rows // len(values)))[:rows].contiguous()


def draws(rows: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return seed, position and sampled; every row is drawn."""
    ids = torch.arange(rows, device=device)
    return ids * 7919 + 3, ids + 100, torch.ones(rows, dtype=torch.bool, device=device)


def of_columns(kernel: Any, definition: Any, *values: Sequence[float]) -> Make:
    """Return a case whose kernel takes logits and columns; the first value of each says its type."""
    types = {bool: torch.bool, int: torch.int64, float: torch.float32}

    def make(rows: int, vocabulary: int, device: str) -> Case:
        taken = [column(rows, device, *value, dtype=types[type(value[0])]) for value in values]
        return Case(
            lambda x: kernel(x, *(c[: len(x)] for c in taken)), lambda x: definition(x, *(c[: len(x)] for c in taken))
        )

    return make


def cases() -> dict[str, Make]:
    """Return the cases by name: the core's, then the methods'."""
    import contrasts

    import midstep_deepconf.kernel as deepconf
    import midstep_deepconf.reference as deepconf_reference
    import midstep_dynamic_temperature.kernel as dynamic
    import midstep_dynamic_temperature.reference as dynamic_reference
    import midstep_epsilon_eta.kernel as epsilon_eta
    import midstep_epsilon_eta.reference as epsilon_eta_reference
    import midstep_min_p.kernel as min_p
    import midstep_min_p.reference as min_p_reference
    import midstep_p_less.kernel as p_less
    import midstep_p_less.reference as p_less_reference
    import midstep_quadratic.kernel as quadratic
    import midstep_quadratic.reference as quadratic_reference
    import midstep_top_nsigma.kernel as top_nsigma
    import midstep_top_nsigma.reference as top_nsigma_reference
    import midstep_typical.kernel as typical
    import midstep_typical.reference as typical_reference
    from midstep import cutting, sampling, statistics, threshold

    return {
        "draw": _draw,
        "statistics": of_columns(threshold.statistics, statistics._statistics),
        "fused: the draw alone": _fused(),
        "fused: min_p": _fused("min_p"),
        "fused: min_p, p_less, top_nsigma": _fused("min_p", "p_less", "top_nsigma"),
        "fused: top-p": _fused(top_p=0.95),
        "fused: top-k, top-p": _fused(top_k=20, top_p=0.95),
        "fused: min_p, top-p": _fused("min_p", top_p=0.95),
        "mended": _mended,
        "kept": _kept,
        "min_p": of_columns(min_p.keep, min_p_reference.keep, (0.05, 0.1, 0.2)),
        "p_less": of_columns(p_less.keep, p_less_reference.keep, (False, True)),
        "top_nsigma": of_columns(top_nsigma.keep, top_nsigma_reference.keep, (1.0, 1.5), (0, 1)),
        "epsilon": of_columns(epsilon_eta.epsilon, epsilon_eta_reference.epsilon, (3e-4, 1e-3)),
        "eta": of_columns(epsilon_eta.eta, epsilon_eta_reference.eta, (3e-4, 1e-3)),
        "typical": of_columns(typical.keep, typical_reference.keep, (0.9, 0.95), (1, 1)),
        "xtc": _xtc,
        "mirostat": _mirostat,
        "dynamic_temperature": of_columns(
            dynamic.dynamic_temperature, dynamic_reference.dynamic_temperature, (0.5, 0.7), (1.5, 2.0), (1.0, 1.0)
        ),
        "edt": of_columns(dynamic.edt, dynamic_reference.edt, (0.6, 0.8), (0.1, 0.2)),
        "quadratic": of_columns(quadratic.bend, quadratic_reference.bend, (0.3, 0.5), (1.0, 1.5)),
        "dry": _dry,
        "contrast": contrasts.moved(drawn=False),
        "contrast: drawn": contrasts.moved(),
        "contrast: drawn, weight 0": contrasts.moved(shut=True),
        "contrast: top-p's floor": of_columns(cutting.nucleus, sampling._nucleus, (0.9, 0.6)),
        "m3id: weights": contrasts.m3id_weights,
        "nudging": contrasts.nudged,
        "deepconf: confidence": of_columns(deepconf.confidence, deepconf_reference.confidence, (20, 10)),
        "deepconf: window": _window,
        "repetition": _repetition,
        "thinking_budget": _thinking_budget,
    }


def _draw(rows: int, vocabulary: int, device: str) -> Case:
    from midstep import noise
    from midstep.kernel import draw

    columns = draws(rows, device)
    return Case(
        lambda x: draw(x, *(c[: len(x)] for c in columns)), lambda x: noise.draw(x, *(c[: len(x)] for c in columns))
    )


def _mended(rows: int, vocabulary: int, device: str) -> Case:
    from midstep import guards, mending

    moved = logits(rows, vocabulary, torch.float32, device, 5)
    bytes_ = 2 * moved.nbytes  # what was made of the rows is read, and something written
    return Case(
        lambda x: mending.mended(moved[: len(x)], x),
        lambda x: guards._mended(moved[: len(x)], x.float()),
        reads=bytes_,
    )


def _kept(rows: int, vocabulary: int, device: str) -> Case:
    from midstep import guards, mending

    keep = logits(rows, vocabulary, torch.float32, device, 5) > 0
    token = column(rows, device, 0, vocabulary - 1, dtype=torch.int64)
    return Case(
        lambda x: mending.kept(x, keep[: len(x)], token[: len(x)]),
        lambda x: guards._kept(x.float(), keep[: len(x)], token[: len(x)]),
        reads=keep.nbytes + 4 * keep.numel(),
    )


def _fused(*used: str, top_k: int = 0, top_p: float = 1.0) -> Make:
    """Return the fused path with all installed rules compiled in; every row uses `used`, and has these cuts."""

    def make(rows: int, vocabulary: int, device: str) -> Case:
        from midstep import noise
        from midstep.chain import installed
        from midstep.fused import fused
        from midstep.sampling import _cut, cut_numbers
        from midstep_min_p.reference import keep as min_p
        from midstep_p_less.reference import keep as p_less
        from midstep_top_nsigma.reference import keep as top_nsigma

        names, rules = installed()
        params = {
            "min_p": (column(rows, device, 0.1),),
            "p_less": (column(rows, device, False, dtype=torch.bool),),
            "top_nsigma": (column(rows, device, 1.5), column(rows, device, 1.0)),
        }
        keeps: Mapping[str, Callable[..., Tensor]] = {"min_p": min_p, "p_less": p_less, "top_nsigma": top_nsigma}
        columns = torch.zeros(rows, len(rules), 2, device=device)
        uses = torch.zeros(rows, len(rules), dtype=torch.bool, device=device)
        for name in used:
            at = names.index(name)
            uses[:, at] = True
            for i, values in enumerate(params[name]):
                columns[:, at, i] = values.log() if name == "min_p" else values
        heat, drawn = column(rows, device, 1.0, 0.8), draws(rows, device)
        own = column(rows, device, top_k, dtype=torch.int64), column(rows, device, top_p), column(rows, device, 0.0)
        cuts = cut_numbers(*own)

        def run(x: Tensor) -> Tensor:
            n = len(x)
            seed, position, sampled = (c[:n] for c in drawn)
            return fused(x, heat[:n], rules, columns[:n], uses[:n], cuts[:n], seed, position, sampled).token

        def define(x: Tensor) -> Tensor:
            n = len(x)
            left = x.float() / heat[:n, None]
            for name in used:
                left = left.masked_fill(~keeps[name](left, *(c[:n] for c in params[name])), -torch.inf)
            if top_k or top_p < 1:
                left = _cut(left, *(c[:n] for c in own))
            return noise.draw(left, *(c[:n] for c in drawn))

        return Case(run, define)

    return make


def _xtc(rows: int, vocabulary: int, device: str) -> Case:
    from midstep_xtc import kernel, reference

    columns = (
        column(rows, device, 0.05, 0.1),
        torch.ones(rows, dtype=torch.bool, device=device),
        column(rows, device, -1, dtype=torch.int64)[:, None],
    )
    return Case(
        lambda x: kernel.keep(x, *(c[: len(x)] for c in columns)),
        lambda x: reference.keep(x, *(c[: len(x)] for c in columns)),
    )


def _mirostat(rows: int, vocabulary: int, device: str) -> Case:
    from midstep_mirostat import kernel, reference

    columns = (
        column(rows, device, 8.0, 12.0),
        column(rows, device, 5.0),
        column(rows, device, 0.1),
        column(rows, device, 0, 1, dtype=torch.int64),
        *draws(rows, device),
    )
    return Case(
        lambda x: kernel.sample(x, *(c[: len(x)] for c in columns)),
        lambda x: reference.sample(x, *(c[: len(x)] for c in columns)),
    )


def _context(rows: int, vocabulary: int, device: str) -> tuple[Tensor, Tensor]:
    """Return texts that repeat themselves now and then, [rows, CONTEXT], and their lengths."""
    random = torch.Generator(device=device).manual_seed(rows)
    ids = torch.randint(min(vocabulary, 97), (rows, CONTEXT), device=device, generator=random)
    ids[:, -24:] = ids[:, :24]
    return ids, torch.full((rows,), CONTEXT, device=device)


def _dry(rows: int, vocabulary: int, device: str) -> Case:
    import midstep_dry.kernel as kernel
    import midstep_dry.reference as reference

    ids, lengths = _context(rows, vocabulary, device)
    columns = (
        ids,
        lengths,
        column(rows, device, 13, dtype=torch.int64)[:, None],
        column(rows, device, 0.8, 1.0),
        column(rows, device, 1.75),
        column(rows, device, 2, dtype=torch.int64),
        column(rows, device, 0, dtype=torch.int64),
        column(rows, device, 50, dtype=torch.int64),
    )
    return Case(
        lambda x: kernel.penalise(x, *(c[: len(x)] for c in columns)),
        lambda x: reference.penalise(x, *(c[: len(x)] for c in columns)),
        reads=ids.nbytes,
    )


def _window(rows: int, vocabulary: int, device: str) -> Case:
    from midstep_deepconf import kernel, reference

    random = torch.Generator(device=device).manual_seed(rows)
    ring = torch.rand(rows, WINDOW, device=device, generator=random)
    columns = (
        ring,
        column(rows, device, 5.0, 6.0),
        column(rows, device, 5000, 100, dtype=torch.int64),
        column(rows, device, WINDOW, 256, dtype=torch.int64),
    )
    return Case(
        lambda x: kernel.window_mean(*(c[: len(x)] for c in columns)),
        lambda x: reference.window_mean(*(c[: len(x)] for c in columns)),
        reads=2 * ring.nbytes,
        logits=False,
    )


def _repetition(rows: int, vocabulary: int, device: str) -> Case:
    import midstep_repetition.kernel as kernel
    import midstep_repetition.reference as reference

    ids, lengths = _context(rows, vocabulary, device)
    columns = (
        ids,
        lengths,
        lengths - 16,
        column(rows, device, 4, dtype=torch.int64),
        column(rows, device, 64, dtype=torch.int64),
        column(rows, device, 32, dtype=torch.int64),
    )
    return Case(
        lambda x: kernel.repeated(*(c[: len(x)] for c in columns)),
        lambda x: reference.repeated(*(c[: len(x)] for c in columns)),
        reads=ids.nbytes,
        logits=False,
    )


def _thinking_budget(rows: int, vocabulary: int, device: str) -> Case:
    import midstep_thinking_budget.kernel as kernel
    import midstep_thinking_budget.reference as reference

    ids, lengths = _context(rows, vocabulary, device)
    texts = [x for n in (3, 2) for x in (ids[:, -n:].contiguous(), torch.full_like(lengths, n))]
    numbers = [
        column(rows, device, *values, dtype=torch.int64) for values in ((9,), (1, 0), (5, 90), (1,), (0,), (64,), (8,))
    ]
    columns = (ids, lengths, *texts, ids[:, :16].contiguous(), *numbers)
    return Case(
        lambda x: kernel.follow(*(c[: len(x)] for c in columns)),
        lambda x: reference.follow(*(c[: len(x)] for c in columns)),
        reads=rows * 16 * 8,
        logits=False,
    )


def unlike(found: Found, expected: Found) -> str | None:
    """Say how the kernel's results are not the definition's, or None.

    Masks may differ at tokens on the threshold, numbers in their last digits, and one drawn token of a hundred: where
    two tokens' noised logits are equal but for rounding, or a threshold falls between two roundings.
    """
    mine = (found,) if isinstance(found, Tensor) else tuple(found)
    theirs = (expected,) if isinstance(expected, Tensor) else tuple(expected)
    if len(mine) != len(theirs):
        return f"{len(mine)} results instead of {len(theirs)}"
    wrong = [text for a, b in zip(mine, theirs, strict=True) if (text := _unlike(a, b)) is not None]
    return "; ".join(wrong) or None


def _unlike(found: Tensor, expected: Tensor) -> str | None:
    if found.shape != expected.shape or found.dtype.is_floating_point != expected.dtype.is_floating_point:
        return f"{found.dtype} {tuple(found.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    if found.dtype == torch.bool:
        most = int((found != expected).sum(-1).max())
        return f"{most} tokens of a row's mask differ" if most > ON_THRESHOLD else None
    if not found.dtype.is_floating_point:
        share = float((found != expected).float().mean())
        return f"{share:.0%} of the integers differ" if share > 0.01 else None
    there = expected.isfinite()
    if not torch.equal(there, found.isfinite()):
        return "other numbers are finite"
    apart = (found - expected)[there].abs() - 1e-4 * expected[there].abs()
    far = float(apart.max()) if there.any() else 0.0
    return f"a number is {far:.2g} off" if far > 1e-3 else None
