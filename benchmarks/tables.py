"""Makes the tables of README.md and benchmarks/README.md out of benchmarks/results: python benchmarks/tables.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import accuracy
import conflicts
import gpu_tables
import picture
import results
import search
from cells import Row, configuration, table, unique
from gpu_tables import engine_gpu, engine_rehearsal, kernels, steps_gpu, tiles
from results import HERE, KEPT, ROOT, paired, ratio, wilson

BEGIN, END = "<!-- benchmarks: made by benchmarks/tables.py -->", "<!-- benchmarks: end -->"
ENGINES = {"vllm": "vLLM V1", "sglang": "SGLang"}
NAMES = ("small", "real")
UNUSED, SAMPLED = "installed, unused", "min_p, sampled"


def per_step(row: Row) -> tuple[float, float]:
    """Return the microseconds per step of the adapter and of the pipeline; what the clocks themselves took is off."""
    own, pause = row["costs"]
    clocks = row["clocks"]
    net = {name: ns - calls * own - pauses * pause for name, (ns, calls, pauses) in clocks.items()}
    steps = clocks["step"][1]
    return (net["adapter"] + net["step"]) / steps / 1e3, net["pipeline"] / steps / 1e3


def clocks(kept: Row) -> str:
    """Return the table of microseconds per step: adapter + pipeline."""
    rows = [row for row in kept["measured"] if row["what"] == "clocks"]
    sizes = unique(rows, "requests")
    head = ["µs per step: adapter + pipeline", *(f"{n} request{'s' * (n > 1)}" for n in sizes)]
    lines = []
    for use in unique(rows, "use"):
        cells = []
        for size in sizes:
            found = [per_step(row) for row in rows if (row["use"], row["requests"]) == (use, size)]
            adapter, pipeline = min(found, key=sum)
            cells.append(f"{adapter:.0f} + {pipeline:.0f}" if pipeline else f"{adapter:.0f}")
        lines.append([use, *cells])
    return table(head, lines)


def pairs(kept: Row) -> str:
    """Return the table of ratios of processor seconds, with their intervals."""
    rows = [row for row in kept["measured"] if row["what"] == "pairs"]
    columns = sorted({(row["model"] == "real", row["requests"]) for row in rows})
    head = ["CPU seconds to plain ones", *(f"{NAMES[real]}, {n} request{'s' * (n > 1)}" for real, n in columns)]
    return table(
        head, [[use, *(pair(rows, use, NAMES[real], n) for real, n in columns)] for use in unique(rows, "use")]
    )


def pair(rows: Iterable[Row], use: str, model: str, requests: int) -> str:
    """Return one cell: the ratio to plain requests of the same engine, and its interval."""
    mine = [row for row in rows if (row["use"], row["model"], row["requests"]) == (use, model, requests)]
    middle, low, high = ratio([row["on_cpu"] for row in mine], [row["off_cpu"] for row in mine])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def overhead(kept: Row | None, engine: str) -> str:
    """Return the part of one engine."""
    title = f"### {ENGINES[engine]}\n\n"
    if kept is None:
        return f"{title}Not measured yet: `python3.11 benchmarks/overhead.py {engine}`."
    parts = [configuration(kept)]
    parts += [made(kept) for made, what in ((clocks, "clocks"), (pairs, "pairs")) if _has(kept, what)]
    return title + "\n\n".join(parts)


def _has(kept: Row, what: str) -> bool:
    return any(row["what"] == what for row in kept["measured"])


def guidance(kept: Row | None, engine: str) -> str:
    """Return the part of guided requests: their throughput to that of plain ones, with intervals."""
    title = f"### Guided requests in {ENGINES[engine]}\n\n"
    if kept is None:
        return f"{title}Not measured yet: `python3.11 benchmarks/guidance.py {engine}`."
    rows = kept["measured"]
    lines = []
    for size in unique(rows, "guided"):
        mine = [row for row in rows if row["guided"] == size]
        cells = []
        for beside in ("plain_wall", "twice_wall"):
            middle, low, high = ratio([row[beside] for row in mine], [row["guided_wall"] for row in mine])
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        lines.append([f"{size}", *cells])
    head = ["B guided requests", "throughput to B plain ones", "rows per second to 2 B plain ones"]
    return f"{title}{configuration(kept)}\n\n{table(head, lines)}"


def triples(kept: Row | None, engine: str) -> str:
    """Return the part of requests of three rows: what one costs in plain rows, with intervals."""
    title = f"### Guided triples in {ENGINES[engine]}\n\n"
    if kept is None:
        return f"{title}Not measured yet: `python3.11 benchmarks/triples.py {engine}`."
    lines = []
    for size in unique(kept["measured"], "guided"):
        mine = [row for row in kept["measured"] if row["guided"] == size]
        cells = []
        for beside, rows in (("thrice_wall", 3), ("dressed_wall", 3), ("plain_wall", 1)):
            found = ratio([row["triple_wall"] for row in mine], [row[beside] for row in mine])
            middle, low, high = (rows * one for one in found)
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        lines.append([f"{size}", *cells])
    head = ["B triples: one costs", "rows of 3 B plain ones", "rows of 3 B dressed as theirs", "rows of B plain ones"]
    return f"{title}{configuration(kept)}\n\n{table(head, lines)}"


def neighbours(kept: Row | None, engine: str) -> str:
    """Return the part of plain requests beside guided ones: their speed to that beside as many plain rows."""
    title = f"### Neighbours of guided requests in {ENGINES[engine]}\n\n"
    if kept is None:
        return f"{title}Not measured yet: `python3.11 benchmarks/neighbours.py {engine}`."
    lines = []
    for plain, guided in dict.fromkeys((row["neighbours"], row["guided"]) for row in kept["measured"]):
        mine = [row for row in kept["measured"] if (row["neighbours"], row["guided"]) == (plain, guided)]
        middle, low, high = ratio([row["plain_seconds"] for row in mine], [row["guided_seconds"] for row in mine])
        lines.append([f"{plain}", f"{guided}", f"{middle:.3f} ({low:.3f} to {high:.3f})"])
    head = ["plain requests", "beside G guided ones", "their speed to that beside 2 G plain ones"]
    return f"{title}{configuration(kept)}\n\n{table(head, lines)}"


def knowledge(kept: Row | None) -> str:
    """Return the part of the knowledge conflicts: shares of answers by what they follow, with their intervals."""
    title = "### What guidance does to answers\n\n"
    if kept is None:
        return f"{title}Not measured yet: `python3.11 benchmarks/conflicts.py`."
    rows = kept["measured"]
    known = conflicts.known(rows)
    templates = unique(rows, "template")
    lines = []
    for use in kept["configuration"]["uses"]:
        if use == conflicts.ALONE:
            continue
        counts = conflicts.counted(rows, use)
        cells = [_share(counts[name], len(rows)) for name in ("context", "memory", "neither")]
        lines.append([use, *cells, _share(conflicts.counted(known, use)["context"], len(known))])
    head = ["% of answers", "follow the context", "follow memory", "neither", "context, where known"]
    parts = [configuration(kept), table(head, lines)]
    by_template = [[use, *(f"{_of(rows, use, name):.0f}" for name in templates)] for use, *_ in lines]
    parts.append(table(["% that follow the context, by how it is told", *templates], by_template))
    about = kept["configuration"]
    told = f"{about['model']}, vLLM {about['runner']}, {len(rows)} prompts, {about['tokens']} tokens."
    alone = f"Without the context the model tells {len(known)} of them right: these are those that it knows."
    return title + "\n\n".join([f"{told} {alone}", *parts])


def _share(count: int, of: int) -> str:
    share, low, high = wilson(count, of)
    return f"{share * 100:.1f} ({low * 100:.1f} to {high * 100:.1f})"


def _of(rows: Sequence[Row], use: str, template: str) -> float:
    some = [row for row in rows if row["template"] == template]
    return 100 * conflicts.counted(some, use)["context"] / len(some)


def searches(kept: Row | None) -> str:
    """Return the part of the searches' accuracy."""
    title = "### What searches are worth\n\n"
    if kept is None:
        return f"{title}Not measured yet: `python3.11 benchmarks/accuracy.py`."
    rows, about = kept["measured"], kept["configuration"]
    told = f"{about['model']}, vLLM {about['runner']}, {len(rows)} tasks: {about['tasks']}."
    parts = [told, configuration(kept)]
    parts.append(f"{PICTURE}(results/accuracy.svg)")
    plain = [(name, width) for name, width in ((accuracy.GREEDY, 1), (accuracy.ONE, 1))]
    plain += [(accuracy.MAJORITY, width) for width in accuracy.WIDTHS]
    lines = [
        [f"{name}, {width}" if width > 1 else name, *_worth(rows, f"{name} {width} none")] for name, width in plain
    ]
    parts.append(table(["without a reward, % of answers that are right", "", "tokens"], lines))
    for reward in accuracy.REWARDS:
        lines = []
        for name in accuracy.searches(accuracy.WIDTHS[0]):
            cells = [_worth(rows, f"{name} {width} {reward}") for width in accuracy.WIDTHS]
            last = accuracy.WIDTHS[-1]
            apart = _apart(rows, f"{name} {last} {reward}", f"best_of_n {last} {reward}")
            lines.append([name, *(f"{right}, {tokens}" for right, tokens in cells), apart])
        head = [f"{reward} reward: % right, tokens", *(f"width {width}" for width in accuracy.WIDTHS)]
        parts.append(table([*head, f"points to best_of_n, {accuracy.WIDTHS[-1]}"], lines))
    return title + "\n\n".join(parts)


def _worth(rows: Sequence[Row], key: str) -> tuple[str, str]:
    right, engine, reward = accuracy.counted(rows, key)
    return _share(right, len(rows)), f"{engine + reward:.0f}"


def _apart(rows: Sequence[Row], key: str, other: str) -> str:
    if key == other:
        return "-"
    middle, low, high = paired(*([row["uses"][one][0] for row in rows] for one in (key, other)))
    return f"{middle * 100:+.1f} ({low * 100:+.1f} to {high * 100:+.1f})"


PICTURE = "![Share of right answers against tokens, by search]"
SIDES = {"driver": "from outside, `midstep.drivers.openai`", "endpoint": "in the server, one request for a search"}


def _ratio(found: Sequence[float]) -> str:
    middle, low, high = found
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def its_hub(kept: Row | None) -> str:
    """Return the part of the searches beside its-hub's."""
    title = "### Searches beside its-hub's\n\n"
    if kept is None:
        return f"{title}Not measured yet: `python3.11 benchmarks/search.py`."
    about, lines = kept["configuration"], []
    for case, found in kept["ratios"].items():
        plan, reward, by = case.split(", ")
        cells = [_ratio(found[key]) for key in search.KEYS.values()]
        lines.append([f"{plan}, {reward}", SIDES[by], *cells])
    told = f"{about['model']}, width {about['width']}, {about['steps']} steps of {about['step_tokens']} tokens."
    head = ["search, reward", "midstep", "prompt tokens sent", "computed", "wall seconds", "tokens generated"]
    return title + "\n\n".join([told, configuration(kept), table(head, lines)])


def short() -> str:
    """Return the root README's block: the targets, and what was found."""
    kept = {engine: results.read(f"overhead_{engine}") for engine in ENGINES}
    lines: list[Sequence[str]] = []
    for label, cell in (
        ("installed and unused, µs per step at 32 requests", _clock_cell(UNUSED, 32)),
        ("greedy min_p, µs per step at 32 requests", _clock_cell("min_p, greedy", 32)),
        ("sampled min_p, µs per step at 32 requests", _clock_cell(SAMPLED, 32)),
        ("greedy min_p to plain, CPU seconds, 32 requests", _pair_cell("min_p, greedy", "small", 32)),
        ("sampled min_p to plain, CPU seconds, 32 requests", _pair_cell(SAMPLED, "small", 32)),
        ("the same with 49,152 tokens, 8 requests", _pair_cell(SAMPLED, "real", 8)),
    ):
        lines.append([label, *("not measured" if one is None else cell(one) for one in kept.values())])
    text = table(["on a CPU, a model of 30 layers and 1,024 tokens, one thread", *ENGINES.values()], lines)
    told = "Ratios with 95 % intervals; all of it in [benchmarks](benchmarks)."
    return "\n\n".join([text, told, *gpu_tables.short(), *_short_searches()])


def _short_searches() -> list[str]:
    """Return what the root README says of searches, as far as it was measured."""
    parts, kept = [], results.read("search")
    if kept is not None:
        keys = ["prompt_tokens_sent_ratio", "prompt_tokens_computed_ratio", "wall_ratio"]
        lines = [
            [case.removesuffix(", endpoint"), *(_ratio(found[key]) for key in keys)]
            for case, found in kept["ratios"].items()
            if case.endswith(", endpoint")
        ]
        head = ["a search in one request, width 16, to its-hub's", "prompt tokens sent", "computed", "wall seconds"]
        parts.append(table(head, lines))
    if results.read("accuracy") is not None:
        parts.append(f"{PICTURE}(benchmarks/results/accuracy.svg)")
    return parts


def _clock_cell(use: str, requests: int) -> Callable[[Row], str]:
    def cell(kept: Row) -> str:
        rows = [r for r in kept["measured"] if (r["what"], r.get("use"), r["requests"]) == ("clocks", use, requests)]
        return f"{min(sum(per_step(row)) for row in rows):.0f}" if rows else "not measured"

    return cell


def _pair_cell(use: str, model: str, requests: int) -> Callable[[Row], str]:
    def cell(kept: Row) -> str:
        rows = [r for r in kept["measured"] if r["what"] == "pairs"]
        asked = any((r["use"], r["model"], r["requests"]) == (use, model, requests) for r in rows)
        return pair(rows, use, model, requests) if asked else "not measured"

    return cell


def full() -> str:
    """Return the block of benchmarks/README.md."""
    parts = [overhead(results.read(f"overhead_{engine}"), engine) for engine in ENGINES]
    for made in (guidance, triples, neighbours):
        parts += [made(results.read(f"{made.__name__}_{engine}"), engine) for engine in ENGINES]
    parts.append(knowledge(results.read("conflicts")))
    parts += [searches(results.read("accuracy")), its_hub(results.read("search"))]
    parts += [kernels(results.read("kernels")), tiles(results.read("tiles"))]
    parts += [engine_gpu(results.read("engine_gpu")), steps_gpu(results.read("steps_gpu"))]
    return "\n\n".join([*parts, engine_rehearsal(results.read("engine_rehearsal"))])


BLOCKS: Mapping[Path, Callable[[], str]] = {ROOT / "README.md": short, HERE / "README.md": full}


def standing(readme: Path) -> str:
    """Return the block that stands in a README."""
    text = readme.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def pictures() -> dict[Path, str]:
    """Return every picture, where it lies."""
    kept = results.read("accuracy")
    return {} if kept is None else {KEPT / "accuracy.svg": picture.accuracy(kept)}


def main() -> None:
    """Put every block into its README, and draw the pictures."""
    for path, drawn in pictures().items():
        path.write_text(drawn)
    for readme, made in BLOCKS.items():
        text = readme.read_text()
        head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        readme.write_text(f"{head}\n{made()}\n{tail}")


if __name__ == "__main__":
    main()
