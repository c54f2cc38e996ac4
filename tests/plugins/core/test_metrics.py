"""What is counted for Prometheus, and that nothing needs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from midstep import metrics
from midstep.report import Fault, MethodReport, Report, Step, Stop, Tokens
from midstep.searching import Spent

ROOT = Path(__file__).parents[3]
METERS = (*metrics.COUNTERS, *metrics.HISTOGRAMS)
REPORT = Report(
    sample=0,
    seed=1,
    methods={
        "min_p": MethodReport(params={}, tokens=9, changed=4),
        "deepconf": MethodReport(params={}, tokens=9, changed=0),
    },
    stop=Stop(rule="deepconf", position=8, value=1.0, threshold=2.0),
    faults=[Fault(method="min_p", fault="nan", position=3, count=2)],
)


def test_a_report_is_counted_by_method_rule_and_fault() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    for _ in range(2):
        metrics.count(REPORT, "a model")

    def value(name: str, **labels: str) -> float | None:
        return prometheus.REGISTRY.get_sample_value(name, {"model_name": "a model", **labels})

    assert value("midstep_requests_total", method="min_p") == 2
    assert value("midstep_tokens_total", method="deepconf") == 18
    assert value("midstep_tokens_changed_total", method="min_p") == 8
    assert value("midstep_tokens_changed_total", method="deepconf") == 0
    assert value("midstep_stops_total", rule="deepconf") == 2
    assert value("midstep_faults_total", method="min_p", fault="nan") == 4
    metrics.observe(0.003, "a model")
    metrics.observe(0.5, "a model")
    assert value("midstep_step_seconds_count") == 2
    assert value("midstep_step_seconds_sum") == pytest.approx(0.503)
    assert value("midstep_step_seconds_bucket", le="0.005") == 1


def test_a_search_is_counted_by_what_became_of_it_and_its_tokens_by_kind() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    for seconds, outcome in ((0.2, "answered"), (70.0, "failed")):
        metrics.count_search("dvts", outcome, seconds, Spent(engine=7, reward=3, prompt=20, calls=2), 4, "a model")

    def value(name: str, **labels: str) -> float | None:
        return prometheus.REGISTRY.get_sample_value(name, {"model_name": "a model", "search": "dvts", **labels})

    assert value("midstep_searches_total", outcome="answered") == 1
    assert value("midstep_searches_total", outcome="failed") == 1
    assert value("midstep_search_tokens_total", kind="engine") == 14
    assert value("midstep_search_tokens_total", kind="reward") == 6
    assert value("midstep_search_tokens_total", kind="prompt") == 40
    assert value("midstep_search_tokens_total", kind="cached") is None
    assert value("midstep_search_pruned_total") == 8
    assert value("midstep_search_seconds_sum") == pytest.approx(70.2)
    assert value("midstep_search_seconds_bucket", le="60.0") == 1


def test_what_a_reward_said_is_counted_by_reward_and_verdict() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    steps = [
        Step(end=3, score=0.5, verdict="go on", seconds=0.02),
        Step(end=6, score=0.1, verdict="stop", seconds=0.2),
        Step(end=9, score=None, verdict="late", seconds=None),
    ]
    used = {"step_reward": MethodReport(params={"reward": "prm"}, tokens=9, changed=0)}
    report = Report(sample=0, seed=None, methods=used, tokens=Tokens(reward=40), steps=steps)
    metrics.count(report, "judged")

    def value(name: str, **labels: str) -> float | None:
        return prometheus.REGISTRY.get_sample_value(name, {"model_name": "judged", "reward": "prm", **labels})

    assert value("midstep_reward_scores_total") == 2
    assert value("midstep_reward_tokens_total") == 40
    verdicts = {one: value("midstep_reward_verdicts_total", verdict=one) for one in ("go on", "stop", "late")}
    assert set(verdicts.values()) == {1}
    assert value("midstep_reward_seconds_count") == 2
    assert value("midstep_reward_seconds_sum") == pytest.approx(0.22)


def test_without_prometheus_nothing_is_counted_and_nothing_fails() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from midstep import metrics\n"
        "from midstep.report import Report, MethodReport\n"
        "metrics.count(Report(sample=0, seed=1, methods={'a': MethodReport(params={}, tokens=1, changed=1)}), 'm')\n"
        "metrics.observe(0.1, 'm')\n"
        "from midstep.searching import Spent\n"
        "metrics.count_search('s', 'answered', 0.1, Spent(), 0, 'm')\n"
        "print('fine')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_a_name_that_is_taken_is_said_once_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    taken = prometheus.Counter("midstep_taken", "Somebody else's.")
    meter = metrics.Meter("midstep_taken_total", "Ours.", ("method",))
    assert metrics._metric(meter) is None
    assert metrics._metric(meter) is None
    assert len(caplog.records) == 1
    prometheus.REGISTRY.unregister(taken)


def test_the_readme_lists_every_metric_with_its_labels() -> None:
    text = (ROOT / "plugins/core/README.md").read_text()
    table = re.findall(r"^\| `(midstep_\w+)` \| (.+?) \| (.+?) \|$", text, re.M)
    assert table == [(m.name, ", ".join(f"`{n}`" for n in ("model_name", *m.labels)), m.text) for m in METERS]
