"""Counts what methods do, for Prometheus: in prometheus_client's registry, which both engines show at `/metrics`.

The reports of ended requests are counted where they reach the client. Without prometheus_client, which comes with the
engines and not with the core, nothing is counted.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .report import Report
from .watching.watched import NAME

if TYPE_CHECKING:
    from .searching import Spent

logger = logging.getLogger("midstep")

# In seconds; a step of a small model takes a few milliseconds, and a search anything up to hours.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LONG_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 600.0, 3600.0)
REWARD_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Meter:
    """One metric: its name as `/metrics` shows it, what it counts, and its labels beside `model_name`.

    With `buckets` it is a histogram, else a counter.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUESTS = Meter("midstep_requests_total", "Requests (samples) that ended and used the method.", ("method",))
TOKENS = Meter("midstep_tokens_total", "Tokens of these requests: rows that the method saw.", ("method",))
CHANGED = Meter("midstep_tokens_changed_total", "Tokens that the method changed.", ("method",))
STOPS = Meter("midstep_stops_total", "Requests that a stop rule ended.", ("rule",))
FAULTS = Meter("midstep_faults_total", "Positions at which the method failed.", ("method", "fault"))
STEP = Meter(
    "midstep_step_seconds", "Time of the host for midstep's part of one of the engine's steps.", buckets=BUCKETS
)
SEARCHES = Meter("midstep_searches_total", "Searches of this server that ended.", ("search", "outcome"))
SEARCH_TOKENS = Meter("midstep_search_tokens_total", "Tokens of these searches, by what they are.", ("search", "kind"))
PRUNED = Meter("midstep_search_pruned_total", "Branches that these searches pruned.", ("search",))
SEARCH = Meter("midstep_search_seconds", "Time of one of these searches.", ("search",), LONG_BUCKETS)
SCORES = Meter("midstep_reward_scores_total", "Steps that the reward scored.", ("reward",))
VERDICTS = Meter("midstep_reward_verdicts_total", "Steps by what became of them.", ("reward", "verdict"))
REWARD_TOKENS = Meter("midstep_reward_tokens_total", "Tokens that the reward was sent.", ("reward",))
LATENCY = Meter("midstep_reward_seconds", "Time from a step's end to the verdict on it.", ("reward",), REWARD_BUCKETS)
COUNTERS = (
    *(REQUESTS, TOKENS, CHANGED, STOPS, FAULTS),
    *(SEARCHES, SEARCH_TOKENS, PRUNED),
    *(SCORES, VERDICTS, REWARD_TOKENS),
)
HISTOGRAMS = (STEP, SEARCH, LATENCY)


def count(report: Report, model: str) -> None:
    """Count the report of a request that has ended; `model` is the name under which it is served."""
    for name, method in report.methods.items():
        _add(REQUESTS, 1, model, method=name)
        _add(TOKENS, method.tokens, model, method=name)
        _add(CHANGED, method.changed, model, method=name)
    if report.stop is not None:
        _add(STOPS, 1, model, rule=report.stop.rule)
    for fault in report.faults:
        _add(FAULTS, fault.count, model, method=fault.method, fault=fault.fault)

    if report.steps is not None:
        _count_steps(report, model)


def _count_steps(report: Report, model: str) -> None:
    reward = report.methods[NAME].params["reward"]
    _add(REWARD_TOKENS, report.tokens.reward, model, reward=reward)
    for step in report.steps or ():
        _add(SCORES, step.score is not None, model, reward=reward)
        _add(VERDICTS, 1, model, reward=reward, verdict=step.verdict)
        metric = _metric(LATENCY) if step.seconds is not None else None
        if metric is not None:
            metric.labels(model_name=model, reward=reward).observe(step.seconds)


def observe(seconds: float, model: str) -> None:
    """Note the time of one step with midstep's rows."""
    metric = _metric(STEP)
    if metric is not None:
        metric.labels(model_name=model).observe(seconds)


def count_search(search: str, outcome: str, seconds: float, spent: Spent, pruned: int, model: str) -> None:
    """Count a search that has ended: "answered", "failed" or "cancelled"."""
    _add(SEARCHES, 1, model, search=search, outcome=outcome)
    for kind, amount in asdict(spent).items():
        if kind != "calls" and amount:
            _add(SEARCH_TOKENS, amount, model, search=search, kind=kind)
    _add(PRUNED, pruned, model, search=search)
    metric = _metric(SEARCH)
    if metric is not None:
        metric.labels(model_name=model, search=search).observe(seconds)


def _add(meter: Meter, amount: int, model: str, **labels: str) -> None:
    metric = _metric(meter)
    if metric is not None:
        metric.labels(model_name=model, **labels).inc(amount)


@cache
def _metric(meter: Meter) -> Any:
    """Return prometheus_client's metric, made at its first use: an engine sets its directory before it serves."""
    try:
        client = importlib.import_module("prometheus_client")
    except ImportError:
        return None
    labels = ("model_name", *meter.labels)
    try:
        if meter.buckets:
            return client.Histogram(meter.name, meter.text, labels, buckets=meter.buckets)
        return client.Counter(meter.name, meter.text, labels)
    except ValueError:  # somebody else has the name
        logger.exception("midstep: %s is not counted", meter.name)
        return None
