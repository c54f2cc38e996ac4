"""The tables of what was measured on a GPU, and of what a host does for one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import results
from cells import Row, configuration, table, unique
from results import difference, ratio

IN_USE = 4096, 4  # the kernels' tile and warps
# Of the root README: a line's text, the case, and whose time it is.
SHORT_KERNELS = (
    ("the draw", "draw", "midstep"),
    ("vLLM's draw", "draw", "vLLM"),
    ("min-p and the draw, fused", "fused: min_p", "midstep"),
    ("three rules and the draw, fused", "fused: min_p, p_less, top_nsigma", "midstep"),
    ("top-k, top-p and the draw, fused", "fused: top-k, top-p", "midstep"),
    ("the same by vLLM's kernels, with a copy", "fused: top-k, top-p", "vLLM, with a copy"),
    ("guidance by a second row, and the draw", "contrast: drawn", "midstep"),
)

# The folder of a method's distribution, and its kernels' cases by the method's name.
OF_METHODS = {
    "samplers/dynamic_temperature": ("dynamic_temperature", "edt"),
    "samplers/epsilon_eta": ("epsilon", "eta"),
    "samplers/min_p": ("min_p",),
    "samplers/mirostat": ("mirostat",),
    "samplers/p_less": ("p_less",),
    "samplers/quadratic": ("quadratic",),
    "samplers/top_nsigma": ("top_nsigma",),
    "samplers/typical": ("typical",),
    "samplers/xtc": ("xtc",),
    "logits_processors/dry": ("dry",),
    "logits_processors/guidance": ("contrast: drawn",),
    "logits_processors/m3id": ("m3id: weights", "contrast: drawn"),
    "logits_processors/nudging": ("nudging",),
    "reward_hooks/stops/deepconf": ("deepconf: confidence", "deepconf: window"),
    "reward_hooks/stops/repetition": ("repetition",),
}


def of_methods() -> dict[str, str]:
    """Return the sentence of each method's README that says how long its kernels take on a GPU."""
    kept = results.read("kernels")
    if kept is None:
        return {}
    rows = [row for row in kept["measured"] if (row["vocabulary"], row["dtype"]) == (151936, "float32")]
    times = {(row["case"], row["rows"]): min(row["microseconds"]) for row in rows if row["who"] == "midstep"}
    found = {}
    for folder, names in OF_METHODS.items():
        one, many = (" and ".join(f"{times[name, size]:.1f}" for name in names) for size in (1, 64))
        named = f" ({', '.join(names)})" if len(names) > 1 else ""
        gpu = kept["versions"]["gpu"].removeprefix("NVIDIA ")
        found[folder] = f"On an {gpu}, 151,936 tokens in float32{named}: {one} µs at 1 row, {many} at 64."
    return found


def kernels(kept: Row | None) -> str:
    """Return the part of the kernels: microseconds by rows, of midstep and of what does the same."""
    title = "### Kernels\n\n"
    if kept is None:
        return f"{title}No GPU figure is published: none was measured yet."
    speed = kept["configuration"]["bandwidths"]
    parts = [configuration(kept), f"Copy {speed['copy']:.0f} GB/s, read {speed['read']:.0f} GB/s. In microseconds:"]
    rows = kept["measured"]
    for vocabulary in unique(rows, "vocabulary"):
        for dtype in unique(rows, "dtype"):
            some = [row for row in rows if (row["vocabulary"], row["dtype"]) == (vocabulary, dtype)]
            if some:
                parts.append(_kernel_table(some, f"V = {vocabulary}, {dtype}"))
    return title + "\n\n".join(parts)


def _kernel_table(rows: Sequence[Row], title: str) -> str:
    sizes = sorted(unique(rows, "rows"))
    times = {(row["case"], row["who"], row["rows"]): row["microseconds"] for row in rows}
    lines = []
    for case, who in dict.fromkeys((row["case"], row["who"]) for row in rows):
        found = [times.get((case, who, size)) for size in sizes]
        lines.append([case, who, *(f"{min(one):.1f}" if one else "-" for one in found)])
    return table([title, "by", *(str(size) for size in sizes)], lines)


def tiles(kept: Row | None) -> str:
    """Return the part of the kernels' tile and warps: microseconds by variant; the one in use first."""
    title = "### The kernels' tile\n\n"
    if kept is None:
        return f"{title}No GPU figure is published: none was measured yet."
    rows, lines = kept["measured"], []
    sizes = sorted(unique(rows, "rows"))
    variants = sorted({(row["tile"], row["warps"]) for row in rows}, key=lambda one: (one != IN_USE, one))
    times = {
        (row["case"], row["dtype"], row["tile"], row["warps"], row["rows"]): min(row["microseconds"]) for row in rows
    }
    for case, dtype in dict.fromkeys((row["case"], row["dtype"]) for row in rows):
        cells = [" / ".join(f"{times[case, dtype, *one, size]:.1f}" for size in sizes) for one in variants]
        lines.append([f"{case}, {dtype}", *cells])
    about = kept["configuration"]
    head = [f"µs at {' / '.join(map(str, sizes))} rows", *(f"{tile}, {warps} warps" for tile, warps in variants)]
    copied = f"{about['bandwidths']['copy']:.0f} GB/s"
    told = f"V = {about['vocabulary']}; a kernel copies at {copied}. The first column is in use."
    return title + "\n\n".join([configuration(kept), told, table(head, lines)])


def steps_gpu(kept: Row | None) -> str:
    """Return the part of a decode step on a GPU: what the device and the host do."""
    title = "### Where a decode step goes on a GPU\n\n"
    if kept is None:
        return f"{title}No GPU figure is published: none was measured yet."
    lines = [
        [row["use"], *(f"{row[key]:.0f}" for key in ("step", "busy", "host")), f"{_launches(row):.0f}"]
        for row in kept["measured"]
    ]
    about = kept["configuration"]
    how = f"{about['requests']} requests, {about['compilation']}, CUDA graphs {about['graphs']}"
    told = f"{how}; the engine and its client in one process."
    head = ["µs per step", "step", "device busy", "processor time of the process", "launches beside the graph"]
    return title + "\n\n".join([configuration(kept), told, table(head, lines)])


def _launches(row: Row) -> float:
    return float(sum(count for count, _ in row["outside"].values()))


def engine_gpu(kept: Row | None) -> str:
    """Return the part of the engine on a GPU."""
    title = "### An engine on a GPU\n\n"
    if kept is None:
        return f"{title}No GPU figure is published: none was measured yet."
    rows = kept["measured"]
    lines = []
    for use in unique(rows, "use"):
        mine = [row for row in rows if row["use"] == use]
        ours, theirs = ([row[who] for row in mine] for who in ("milliseconds", "plain_milliseconds"))
        middle, low, high = ratio(ours, theirs)
        plain, used = statistics.median(theirs), statistics.median(ours)
        lines.append([use, f"{plain:.3f}", f"{used:.3f}", f"{middle:.3f} ({low:.3f} to {high:.3f})"])
    made = table(["request", "ms per step, plain", "with midstep", "ratio"], lines)
    return f"{title}{configuration(kept)}\n\n{made}"


def engine_rehearsal(kept: Row | None) -> str:
    """Return the part of the engine without a GPU."""
    title = "### An engine without a GPU: the host's time only\n\n"
    if kept is None:
        return f"{title}Not measured yet."
    about, rows = kept["configuration"], kept["measured"]
    lines = []
    for use in unique(rows, "use"):
        mine = [row for row in rows if row["use"] == use]
        ours, theirs = ([row[who] * 1e3 for row in mine] for who in ("milliseconds", "plain_milliseconds"))
        middle, low, high = difference(ours, theirs)
        plain, used = statistics.median(theirs), statistics.median(ours)
        lines.append([use, f"{plain:.0f}", f"{used:.0f}", f"{middle:.0f} ({low:.0f} to {high:.0f})"])
    made = table(["host's µs per step", "plain", "with midstep", "difference"], lines)
    how = f"{about['requests']} requests, {about['compilation']}, CUDA graphs {about['graphs']}"
    refused = "".join(f"\n\n{use} was refused: {why}" for use, why in about["refused"].items())
    return f"{title}This is {about['what']}.\n\n{configuration(kept)} {how}.\n\n{made}{refused}"


def short() -> list[str]:
    """Return what the root README says of a GPU, as far as it was measured."""
    parts, kept, steps = [], results.read("kernels"), results.read("steps_gpu")
    if kept is not None:
        rows = [row for row in kept["measured"] if (row["vocabulary"], row["dtype"]) == (151936, "float32")]
        times = {(row["case"], row["who"], row["rows"]): row["microseconds"] for row in rows}
        sizes = [size for size in (1, 64, 256) if ("draw", "midstep", size) in times]
        lines = [
            [text, *(f"{min(times[case, who, size]):.1f}" if times.get((case, who, size)) else "-" for size in sizes)]
            for text, case, who in SHORT_KERNELS
        ]
        head = [f"on an {kept['versions']['gpu']}, 151,936 tokens, float32, µs", *(f"rows: {size}" for size in sizes)]
        parts.append(table(head, lines))
    if steps is not None:
        of = {row["use"]: row for row in steps["measured"]}
        plain, used = of["plain"], of["min_p"]
        parts.append(
            "A decode step of 64 requests of an 8B shape there, vLLM's V2 runner with CUDA graphs: the device is busy "
            f"for {plain['busy']:.0f} µs, with min_p for {used['busy']:.0f}; the step takes {plain['step']:.0f} and "
            f"{used['step']:.0f} µs, with engine and client in one process (commit {steps['commit']})."
        )
    return parts
