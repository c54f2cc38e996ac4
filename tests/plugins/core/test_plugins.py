"""Finding plugins: names that clash, plugins that break, and the two switches."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor
from toy import installed

import midstep


class Twin(midstep.Sampler):
    """Another min_p."""

    name = "min_p"

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Keep everything."""
        return ~logits.isneginf()


def test_two_plugins_with_one_name_stay_reachable_by_distribution() -> None:
    with installed(samplers=[Twin]):
        with pytest.raises(
            ValueError, match="midstep-min-p and by throw-away; name it midstep-min-p:min_p or throw-away:min_p"
        ):
            midstep.request(min_p={})
        midstep.request(**{"throw-away:min_p": {}})
        assert midstep.catalogue().find("throw-away:min_p") is Twin
        midstep.request(deepconf={"threshold": 1.0})


@pytest.mark.parametrize(
    ("hook", "cls", "says"),
    [
        ("logits_processors", Twin, "allowed: subclasses of LogitsProcessor"),
        ("samplers", type("Both", (midstep.Sampler,), {"name": "both", "keep": 1, "sample": 2}), "exactly one of"),
        ("samplers", type("Neither", (midstep.Sampler,), {"name": "neither"}), "exactly one of"),
        ("samplers", type("Unnamed", (Twin,), {"name": "a b"}), "a name is an identifier"),
        ("reward_hooks", type("Half", (midstep.StopController,), {"name": "half"}), "leaves decide undefined"),
    ],
)
def test_a_plugin_that_breaks_its_promise_is_named_and_the_others_work(
    hook: str, cls: type[midstep.Sampler], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with installed(**{hook: [cls]}):
        midstep.request(min_p={})
        assert says in midstep.catalogue().refused["throw-away"]
        assert "throw-away did not load" in caplog.text


def distribution(folder: Path, name: str, source: str) -> None:
    """Lay out an installed distribution without building one."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[midstep]\n{name.removeprefix('midstep_')} = {name}\n")


ASK = """
import logging, midstep
logging.basicConfig(format="%(message)s")
try:
    print(midstep.request(broken={}))
except ValueError as error:
    print(error)
print(midstep.request(min_p={}))
"""


def run(folder: Path, **environment: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}", **environment},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_plugin_that_does_not_import_is_refused_with_its_error_and_the_way_to_mend_it(tmp_path: Path) -> None:
    distribution(tmp_path, "midstep_broken", "import a_module_that_is_not_there")
    said = run(tmp_path)
    assert "method 'broken' did not load: ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in said
    assert "pip install --upgrade midstep_broken" in said
    assert '{"methods":{"min_p":{}}}' in said


def test_a_plugin_for_another_seam_is_refused(tmp_path: Path) -> None:
    distribution(tmp_path, "midstep_broken", "SEAM = 99")
    assert "it is written for seam 99, this midstep has seam 1" in run(tmp_path)


def test_the_switches_restrict_what_loads(tmp_path: Path) -> None:
    distribution(tmp_path, "midstep_broken", "raise RuntimeError('loaded')")
    said = run(tmp_path, MIDSTEP_PLUGINS="min_p")
    assert "loaded" not in said
    assert "no method named 'broken'" in said
    assert "the server runs with MIDSTEP=off" in run(tmp_path, MIDSTEP="off")


def test_the_first_calls_may_come_from_many_threads() -> None:
    """A server's event loops and workers do not wait for each other."""
    code = """
import sys, threading
sys.setswitchinterval(1e-6)
import midstep
start, found = threading.Barrier(16), []
def look():
    start.wait()
    found.append(midstep.catalogue())
threads = [threading.Thread(target=look) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 16 and all(one is found[0] for one in found), len(found)
assert not found[0].refused, found[0].refused
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
