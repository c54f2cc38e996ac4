"""The command line, each subcommand as a process: what it writes, what it says, and its exit status."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from midstep import command

ROOT = Path(__file__).parents[3]
AT_TOKENS = {"samplers": "one", "logits_processors": "two", "reward_hooks/stops": "three"}
BESIDE = {"reward_hooks/rewards": "four", "reward_hooks/selectors": "five", "reward_hooks/searches": "six"}
KINDS = {**AT_TOKENS, **BESIDE}
LAWS = {
    "reward_hooks/rewards": "a step's score depends on nothing after it",
    "reward_hooks/selectors": "one weight per candidate, whatever their order",
    "reward_hooks/searches": "a branch that fails does not end the others",
}
GOOD = """
import midstep
SEAM = 1
class Good(midstep.Sampler):
    "Keeps everything."
    name = "good"
    def keep(self, logits, rows):
        return ~logits.isneginf()
@midstep.hookimpl
def samplers():
    return [Good]
"""

FAR = """
import midstep
from pydantic import Field
SEAM = 1
class Far(midstep.Reward):
    "Asks a server."
    name = "far"
    remote = True
    class Params(midstep.Params):
        url: str = Field(description="Where it is.", examples=["gone"])
    async def score(self, prompt, steps):
        if self.params.url == "gone":
            raise ConnectionError("gone")
        return [1.0] * len(steps)
@midstep.hookimpl
def reward_hooks():
    return [Far]
"""


def python(*arguments: str | Path, cwd: Path = ROOT, path: tuple[Path, ...] = (), **variables: str) -> tuple[int, str]:
    """Run Python, and return its exit status and what it printed; `path` is found before what is installed."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("MIDSTEP", "TRITON_", "PY"))}
    shell |= {"PYTHONPATH": ":".join(map(str, path)), **variables}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=shell, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def midstep(*arguments: str | Path, cwd: Path = ROOT, path: tuple[Path, ...] = (), **variables: str) -> tuple[int, str]:
    """Run one subcommand."""
    return python("-m", "midstep", *arguments, cwd=cwd, path=path, **variables)


def installed(folder: Path, name: str, source: str | None = None, entries: str = "", version: str = "1.0") -> None:
    """Lay out an installed distribution without building one; `entries` replaces the method's entry point."""
    module = name.replace("-", "_")
    if source is not None:
        (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    method = name.removeprefix("midstep-").replace("-", "_")
    (info / "entry_points.txt").write_text(entries or f"[midstep]\n{method} = {module}\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_distribution_passes_its_tests_is_installed_and_keeps_the_laws(kind: str, tmp_path: Path) -> None:
    """Outside of a checkout: written, tested, built, installed, checked, asked for, as an outsider would."""
    status, said = midstep("new", f"{kind}/one_more", cwd=tmp_path)
    assert status == 0, said
    folder = tmp_path / kind / "one_more"
    assert {path.name for path in folder.iterdir()} == {"pyproject.toml", "README.md", "midstep_one_more", "tests"}
    status, said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder, path=(folder,))
    assert status == 0, said
    assert " skipped" not in said
    site = tmp_path / "site"
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    status, said = python("-m", "pip", "install", "-q", *offline, "--target", site, folder)
    assert status == 0, said
    status, said = midstep("check", "midstep-one-more", path=(folder, site))
    assert status == 0, said
    assert f"ok      one_more: {LAWS.get(kind, 'shapes and dtypes')}" in said
    assert "README.md: the parameters of one_more" in said


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a new method of each kind."""
    (tmp_path / "plugins/core/midstep").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file in ("kernel_cases.py", "compiled.py", "interpreter.py"):
        shutil.copy(ROOT / "tests" / file, tmp_path / "tests")
    for kind, name in KINDS.items():
        status, said = midstep("new", f"{kind}/{name}", cwd=tmp_path / "tests")
        assert status == 0, said
        assert f"tests/{kind}/test_{name}.py" in said
        assert (f"tests/{kind}/test_{name}_compile.py" in said) == (kind in AT_TOKENS)
    return tmp_path


def test_new_distributions_of_a_checkout_pass_style_and_tests(checkout: Path) -> None:
    """Their tests lie where this repository has them; ruff finds nothing."""
    path = tuple(checkout / kind / name for kind, name in KINDS.items())
    for tool in (["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        status, said = python("-m", *tool, cwd=checkout)
        assert status == 0, said
    some = "not compile and not gpu"  # of the kernels' tests, one kind of rows
    status, said = python(
        "-m", "pytest", "-q", "-m", some, "-k", "not kernel or ties or empty or bfloat16", cwd=checkout, path=path,
        TRITON_INTERPRET="1",
    )  # fmt: skip
    assert status == 0, said
    assert " skipped" not in said


@pytest.mark.compile
def test_the_kernels_of_new_distributions_compile_to_lean_code(checkout: Path) -> None:
    """Within the bounds that are written with them."""
    path = tuple(checkout / kind / name for kind, name in KINDS.items())
    status, said = python("-m", "pytest", "-q", "-m", "compile", cwd=checkout, path=path)
    assert status == 0, said
    assert "7 passed" in said


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("samplers/MinP", "'MinP' is not a method's name; write lower case, digits and single '_', such as min_p"),
        ("samplers/_x", "is not a method's name"),
        ("samplers/class", "is not a method's name"),
        ("samplers/", "write one of samplers/NAME"),
        ("stops/x", f"write one of {', '.join(f'{kind}/NAME' for kind in KINDS)}"),
        ("samplers/min_p", "exists already; choose another name, or remove it"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(
    path: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    before = sorted((ROOT / "samplers").iterdir())
    assert command.run(["new", path]) == 1
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert not said.out
    assert sorted((ROOT / "samplers").iterdir()) == before


def test_a_method_that_breaks_laws_is_told_which(tmp_path: Path) -> None:
    """The laws that it keeps are said too; so is everything that a distribution lacks."""
    broken = GOOD.replace("SEAM = 1", "").replace("~logits.isneginf()", "logits > logits.nan_to_num(neginf=0).mean()")
    installed(tmp_path, "midstep-good", broken)
    status, said = midstep("check", "good", path=(tmp_path,))
    assert status == 1
    assert "has no SEAM; write `SEAM = 1` in it" in said
    assert "ok      good: shapes and dtypes" in said
    assert "BROKEN  good: a row's result is bitwise the same alone and in any batch" in said
    assert "depends on its neighbours" in said


def test_a_readme_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    """And the table that it must have is printed."""
    status, said = midstep("new", "samplers/one_more", cwd=tmp_path)
    folder = tmp_path / "samplers/one_more"
    installed(folder, "midstep-one-more")
    page = folder / "README.md"
    page.write_text(page.read_text().replace("default 5.0", "default 6.0").replace("## Limits", "## Bounds"))
    status, said = midstep("check", "one-more", path=(folder,))
    assert status == 1
    assert "in this order: What it does, Formula" in said
    assert "| `width (float, >= 0, <= 1000, default 5.0)` | Keep tokens" in said
    assert said.count("BROKEN") == 2


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_thing", "No module named 'no_such_thing'"),
        (GOOD.replace("SEAM = 1", "SEAM = 7"), "has SEAM = 7; write `SEAM = 1` in it"),
        (GOOD.replace('"good"', '"min_p"'), "name it midstep-good:min_p or midstep-min-p:min_p"),
        (GOOD.replace("return [Good]", "return [int]"), "returned <class 'int'>; allowed: subclasses of Sampler"),
        (GOOD.replace('    name = "good"', '    name = "good"\n    rule = "midstep_good:gone"'), "no attribute 'gone'"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_told_why(source: str, says: str, tmp_path: Path) -> None:
    installed(tmp_path, "midstep-good", source)
    status, said = midstep("check", "midstep-good", path=(tmp_path,))
    assert status == 1
    assert says in said
    assert "Traceback" not in said


def test_a_distribution_that_is_not_installed_cannot_be_checked() -> None:
    """Nor can it be described."""
    for arguments, says in (
        (("check", "midstep-nothing"), "no plugin of 'midstep-nothing' is installed here; installed: "),
        (("methods", "nothing"), "no method named 'nothing' is installed; installed: "),
    ):
        status, said = midstep(*arguments)
        assert status == 1
        assert says in said
        assert len(said.splitlines()) == 1


def test_methods_are_listed_by_kind_with_what_did_not_load(tmp_path: Path) -> None:
    installed(tmp_path, "midstep-good", GOOD)
    installed(tmp_path, "midstep-bad", "1 / 0")
    status, said = midstep("methods", path=(tmp_path,))
    assert status == 0
    samplers = said[said.index("samplers\n") :].split("stops\n")[0]
    assert "good" in samplers
    assert "(midstep-good)" in samplers
    assert "deepconf" not in samplers
    assert "refused: method 'bad' did not load: ZeroDivisionError" in said


def test_one_method_is_described_with_its_parameters() -> None:
    status, said = midstep("methods", "deepconf")
    assert status == 0
    assert "one of the stops, from midstep-deepconf" in said
    assert "  window (int, >= 1, <= 8192, default 2048)\n      Tokens in the sliding window." in said


def test_a_sound_installation_has_nothing_broken() -> None:
    status, said = midstep("doctor", MIDSTEP_KERNELS="off", MIDSTEP_COLOUR="red")
    assert status == 0, said
    assert "ok      method min_p of midstep-min-p: p (float, >= 0, <= 1, default 0.05)" in said
    assert "kernels are off, the torch references run: MIDSTEP_KERNELS=off" in said
    assert "MIDSTEP_COLOUR=red is nothing that midstep reads" in said
    assert "BROKEN" not in said


def test_what_is_broken_comes_with_the_line_that_mends_it(tmp_path: Path) -> None:
    """A plugin that does not load, engines without their adapter or with one that fails, a variable that is wrong."""
    installed(tmp_path, "midstep-bad", "1 / 0")
    installed(tmp_path, "vllm", entries="[other]\na = b\n", version="9.9")
    installed(tmp_path, "sglang", entries="[other]\na = b\n", version="9.8")
    installed(tmp_path, "midstep-sglang", entries="[midstep.doctor]\nsglang = no_such_thing:findings\n")
    installed(tmp_path, "midstep-other", entries="[midstep.doctor]\nother = no_such_thing:findings\n")
    status, said = midstep("doctor", path=(tmp_path,), MIDSTEP_PLUGINS="bad,nothing", MIDSTEP_CONFIG="gone.toml")
    assert status == 1
    for line in (
        "BROKEN  vllm 9.9 is here, midstep-vllm is not\n        mend: pip install midstep-vllm\n",
        "BROKEN  sglang 9.8 cannot be used\n        mend: ModuleNotFoundError: No module named 'no_such_thing'",
        "BROKEN  midstep-other is here, other is not\n        mend: pip install 'midstep-other[engine]'\n",
        "BROKEN  method 'bad' did not load: ZeroDivisionError: division by zero\n        mend: mend it with `pip ",
        "BROKEN  MIDSTEP_PLUGINS names nothing, which is not installed\n        mend: name some of bad, ",
        "BROKEN  gone.toml cannot be used\n        mend: gone.toml does not exist",
    ):
        assert line in said
    assert "6 broken" in said


def test_a_midstep_that_is_switched_off_is_said() -> None:
    status, said = midstep("doctor", MIDSTEP="off")
    assert status == 1
    assert "midstep is off: no method is loaded\n        mend: unset MIDSTEP" in said


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("[defaults.min_p]\np = 0.1\n[presets.sure]\ntrace = true\n", 0, "defaults: min_p; presets: sure"),
        ("[limits]\ncolour = 3\n", 1, "limits.colour = 3: extra inputs are not permitted"),
        ("[defaults.min_p]\np = 7\n", 1, "min_p.p = 7: input should be less than or equal to 1"),
        ("[presets.a.nothing]\n", 1, "no method named 'nothing' is installed"),
        ("[limits", 1, "is not TOML"),
    ],
)
def test_a_configuration_is_checked(
    text: str, status: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "midstep.toml").write_text(text)
    assert command.run(["doctor", "--config", str(tmp_path / "midstep.toml")]) == status
    assert says in capsys.readouterr().out


class Elsewhere(BaseHTTPRequestHandler):
    """A server of OpenAI's routes that knows nothing of midstep; it wants a key."""

    def do_GET(self) -> None:
        """Name the model."""
        keyed = self.headers.get("Authorization") == "Bearer swordfish"
        self._answer(200 if keyed else 401, '{"data": [{"id": "m"}]}')

    def do_POST(self) -> None:
        """Answer a completion."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, '{"choices": [{"text": "b"}]}')

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def elsewhere() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_without_midstep_is_told_from_one_with_it(elsewhere: str) -> None:
    """One with it: tests/engines/vllm/test_http.py."""
    status, said = midstep("doctor", "--url", f"{elsewhere}/v1/", "--key", "swordfish")
    assert status == 1
    assert f"{elsewhere} serves m" in said
    assert f"BROKEN  {elsewhere} has no midstep: it answered a request that names a method which nobody has" in said
    status, said = midstep("doctor", "--url", elsewhere)
    assert status == 1
    assert "HTTP 401\n        mend: give its key with --key" in said


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nowhere", "file:///etc/hostname"])
def test_a_server_that_does_not_answer_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["doctor", "--url", url]) == 1
    said = capsys.readouterr().out
    assert "does not answer" in said
    assert "mend: start the server" in said


def test_a_wrong_call_says_how_to_call() -> None:
    status, said = midstep("diagnose")
    assert status == 2
    assert "invalid choice: 'diagnose'" in said
    assert "new,check,methods,doctor" in said.replace("'", "").replace(" ", "")


def test_a_reward_is_tried_where_its_server_is_told(tmp_path: Path) -> None:
    """Without it, what it needs is said; a parameter that is not allowed is refused."""
    installed(tmp_path, "midstep-far", FAR)
    status, said = midstep("check", "far", path=(tmp_path,))
    assert (status, "ok      far: a server scores, so nothing was; say where it is: --far.url ..." in said) == (
        0,
        True,
    ), said
    status, said = midstep("check", "far", "--far.url", "here", path=(tmp_path,))
    assert (status, "ok      far: one finite score per step" in said, "say where" in said) == (0, True, False), said
    status, said = midstep("check", "far", "--far.url", "gone", path=(tmp_path,))
    assert (status, "BROKEN  far: one finite score per step\n        mend: ConnectionError: gone" in said) == (
        1,
        True,
    ), said
    status, said = midstep("check", "far", "--far.port", "7", path=(tmp_path,))
    assert (status, "far.port = 7" in said) == (1, True), said
