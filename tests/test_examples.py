"""The examples that need no engine to be checked, and the length of those that do."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import midstep
from midstep import configuration, metrics

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SHOWN = {"demo_vllm.py", "demo_sglang.py", "side_by_side.py"}  # of ./demo
LONGEST = 40


def test_each_example_is_run_by_a_test_and_is_short() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests/engines").glob("*/test_*.py"))
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.sh")):
        if path.name not in SHOWN:
            assert len(path.read_text().splitlines()) <= LONGEST, path
            assert f'"{path.name}"' in tests or f'load("{path.stem}")' in tests, f"no test runs {path}"


def test_the_dashboard_asks_only_for_what_is_exported() -> None:
    board = json.loads((EXAMPLES / "serving/grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [item["query"] for item in board["templating"]["list"] if item["type"] == "query"]
    labels = {meter.name: {"model_name", *meter.labels} for meter in metrics.COUNTERS}
    for meter in metrics.HISTOGRAMS:
        own = {"model_name", *meter.labels}
        labels |= {f"{meter.name}_sum": own, f"{meter.name}_count": own, f"{meter.name}_bucket": {*own, "le"}}
    named = [set(re.findall(r"\bmidstep_\w+", query)) for query in queries]
    assert all(named)
    assert set().union(*named) == labels.keys(), "the dashboard shows every metric, and no other"
    for query, names in zip(queries, named, strict=True):
        used = set(re.findall(r"(\w+)=~", query))
        used |= {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
        assert all(used <= labels[name] for name in names), query


def test_the_servers_configuration_can_be_used() -> None:
    """Its methods exist, its defaults and presets are allowed, and its presets are the ones that the text names."""
    settings = configuration.current(str(EXAMPLES / "serving/midstep.toml"))
    assert settings.allow is not None
    assert set(settings.defaults.methods) <= settings.allow
    for name in settings.presets:
        asked = midstep.parse({"midstep": name}, settings)
        assert asked is not None
    named = re.findall(r"--preset (\w+)", (EXAMPLES / "serving/README.md").read_text())
    assert set(named) <= settings.presets.keys()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("**/*.sh")), ids=lambda path: path.name)
def test_a_script_is_a_shells(path: Path) -> None:
    assert path.stat().st_mode & 0o111
    done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
