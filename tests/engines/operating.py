"""What an operator of the tests' servers sets and reads: their midstep.toml, and their counters at `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

import midstep
from midstep import metrics

FORBIDDEN = "faulty_rule"
HISTORY = 450
WIDTH = 16

Counts = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def settings(folder: Path) -> str:
    """Write a midstep.toml that allows every installed method but FORBIDDEN, and return its path."""
    names = sorted({name for name in midstep.catalogue().methods if ":" not in name} - {FORBIDDEN})
    path = folder / "midstep.toml"
    path.write_text(
        f"allow = {names}\n[limits]\nhistory = {HISTORY}\nwidth = {WIDTH}\n[presets.forbidden.{FORBIDDEN}]\n"
        '[rewards.mine]\nuse = "vowels"\n'
        '[rewards.slow]\nuse = "vowels"\npause = 0.3\n'
        '[rewards.nan]\nuse = "vowels"\nnan = true\npatience = {tries = 2, backoff = 0.01}\n'
    )
    return str(path)


def grown(read: Callable[[], str], ask: Callable[[], object]) -> Counts:
    """Return by how much midstep's samples at `/metrics`, which `read` returns, grow while `ask` runs."""
    before = samples(read())
    ask()
    growth = {key: value - before.get(key, 0.0) for key, value in samples(read()).items()}
    return {key: by for key, by in growth.items() if by}


def samples(text: str) -> Counts:
    """Return midstep's samples of a `/metrics`."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("midstep_") and not sample.name.endswith("_created")
    }


def counted(reports: Iterable[midstep.Report], model: str) -> Counts:
    """Return by how much these reports must make the counters grow."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def add(meter: metrics.Meter, amount: int, **labels: str) -> None:
        key = meter.name, frozenset({"model_name": model, **labels}.items())
        found[key] = found.get(key, 0.0) + amount

    for report in reports:
        for name, method in report.methods.items():
            add(metrics.REQUESTS, 1, method=name)
            add(metrics.TOKENS, method.tokens, method=name)
            add(metrics.CHANGED, method.changed, method=name)
        if report.stop is not None:
            add(metrics.STOPS, 1, rule=report.stop.rule)
        for step in report.steps or ():
            reward = report.methods["step_reward"].params["reward"]
            add(metrics.SCORES, step.score is not None, reward=reward)
            add(metrics.VERDICTS, 1, reward=reward, verdict=step.verdict)
        if report.steps is not None:
            add(metrics.REWARD_TOKENS, report.tokens.reward, reward=report.methods["step_reward"].params["reward"])
        for fault in report.faults:
            add(metrics.FAULTS, fault.count, method=fault.method, fault=fault.fault)
    return {key: amount for key, amount in found.items() if amount}


def steps(counts: Counts, model: str) -> tuple[float, float]:
    """Return how many steps with midstep's rows there were, and their seconds."""
    label = frozenset({("model_name", model)})
    return counts[f"{metrics.STEP.name}_count", label], counts[f"{metrics.STEP.name}_sum", label]


def counters(counts: Counts) -> Counts:
    """Return the counters alone, without the times."""
    times = tuple(meter.name for meter in metrics.HISTOGRAMS)
    return {key: value for key, value in counts.items() if not key[0].startswith(times)}
