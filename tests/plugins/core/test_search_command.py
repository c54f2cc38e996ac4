"""`midstep search`: a file of prompts, searched at a server, and gone on with after it was killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import midstep
from scripted_server import Double, running

from midstep import command
from midstep.bulk.progress import Progress

ROOT = Path(__file__).parents[3]
PLAN = ("--best-of-n.n", "2", "--reward", "search_rewards:number")


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running(tmp_path_factory.mktemp("server")) as folder:
        yield folder


@pytest.fixture
def server(serving: Path) -> Double:
    """Return the server, as if it had just begun."""
    (serving / "asked").unlink(missing_ok=True)
    (serving / "faults").unlink(missing_ok=True)
    return Double(serving)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a reward of our own."""
    (tmp_path / "search_rewards.py").write_text(
        "from midstep.testing.scripted import value\n"
        "def number(prompt, steps):\n    return value(''.join(steps))\n"
        "calls = []\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prompts(count: int, name: str = "prompts.jsonl") -> list[str]:
    """Write a file of prompts, and return their texts."""
    texts = [f"<{number}>" for number in range(count)]
    rows = [{"id": f"p{i}", "prompt": text, "answer": i} for i, text in enumerate(texts)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return texts


class Child:
    """The command in a process of its own: forked of this one, which has imported everything."""

    def __init__(self, *words: str) -> None:
        self._said = Path(f"said-{time.monotonic_ns()}")
        self.pid = os.fork()
        if self.pid == 0:
            # tests that a shell runs in the background ignore interrupts, and so would their children
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with self._said.open("w", buffering=1) as sys.stderr:
                os._exit(command.run(["search", *words]))
        self.status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> int | None:
        """Send it a signal, and return the status that it had already, or None."""
        before = self.poll()
        if before is None:
            os.kill(self.pid, number)
        return before

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it said."""
        deadline = time.monotonic() + 60
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert self.status is not None, self._said.read_text()
        return self.status, self._said.read_text()


def search(*words: str) -> tuple[int, str]:
    """Run the command; return its status and what it said."""
    return Child(*words).end()


def wait(what: Callable[[], bool], child: Child) -> None:
    """Wait until something is so, or the command has ended."""
    deadline = time.monotonic() + 60
    while not what() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def results(name: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def usual(server: Double, *more: str, plan: tuple[str, ...] = PLAN) -> tuple[str, ...]:
    return ("prompts.jsonl", "--url", server.url, "--out", "out.jsonl", *plan, *more)


def test_each_prompt_is_searched_once_and_its_fields_are_passed_on(server: Double, here: Path) -> None:
    texts = prompts(5)
    status, said = search(*usual(server, "--concurrency", "2", "--candidates", "--trace", "traces", "--budget", "300"))
    assert status == 0, said
    found = {row["id"]: row for row in results()}
    assert len(found) == 5
    for number, text in enumerate(texts):
        row = found[f"p{number}"]
        assert (row["prompt"], row["answer"], row["line"]) == (text, number, number + 1)
        assert (len(row["weights"]), len(row["candidates"])) == (2, 2)
        assert row["text"] == max(row["candidates"], key=lambda candidate: candidate["score"])["text"]
        assert 0 < row["spent"]["engine"] <= 300
        trace = json.loads((here / row["trace"]).read_text())
        assert (trace["id"], trace["text"], len(trace["nodes"])) == (row["id"], row["text"], 2)
    assert server.asked == dict.fromkeys(texts, 1)
    assert len({row["seed"] for row in found.values()}) == 5
    assert "0/5 prompts, 0 failed\n" in said
    assert "5/5 prompts, 0 failed, " in said
    assert "\r" not in said


def test_one_seed_gives_the_same_results_whatever_the_concurrency(server: Double) -> None:
    prompts(6)
    texts = []
    for number, options in enumerate((("--concurrency", "1"), ("--concurrency", "6"), ("--seed", "1"))):
        words = ("prompts.jsonl", "--url", server.url, "--out", f"{number}.jsonl", *PLAN, *options)
        status, said = search(*words)
        assert status == 0, said
        texts.append({row["id"]: row["text"] for row in results(f"{number}.jsonl")})
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_run_killed_at_any_point_goes_on_and_nothing_is_lost_or_repeated(server: Double) -> None:
    """20 times at random: what was finished stays as it is and is not asked for again."""
    texts = prompts(300)
    words = usual(server, "--concurrency", "4")
    chance = random.Random(0)
    kept: list[bytes] = []
    for _ in range(20):
        child = Child(*words)
        more = sum(server.asked.values()) + chance.randrange(12)
        wait(lambda more=more: sum(server.asked.values()) >= more, child)  # type: ignore[misc]
        time.sleep(chance.random() * 0.05)
        assert child.kill() is None, "it was done before it was killed; give it more prompts"
        child.end()
        lines = Path("out.jsonl").read_bytes().split(b"\n")[:-1] if Path("out.jsonl").exists() else []
        assert lines[: len(kept)] == kept
        kept = lines
    assert 0 < len(kept) < len(texts)
    status, said = search(*words)
    assert status == 0, said
    found = results()
    assert Path("out.jsonl").read_bytes().split(b"\n")[: len(kept)] == kept
    assert Counter(row["id"] for row in found) == {f"p{i}": 1 for i in range(len(texts))}
    alone, said = search("prompts.jsonl", "--url", server.url, "--out", "alone.jsonl", *PLAN)
    assert alone == 0, said
    assert {row["id"]: row["text"] for row in found} == {row["id"]: row["text"] for row in results("alone.jsonl")}
    asked = server.asked
    assert search(*words)[0] == 0
    assert server.asked == asked
    assert set(asked) == set(texts)


@pytest.mark.parametrize("cut", [1, 2, 40, 400])
def test_a_torn_last_line_is_done_again_and_a_whole_one_without_its_end_is_not(server: Double, cut: int) -> None:
    texts = prompts(3)
    assert search(*usual(server, "--concurrency", "1"))[0] == 0
    whole = Path("out.jsonl").read_bytes()
    last = json.loads(whole.splitlines()[-1])
    Path("out.jsonl").write_bytes(whole[:-cut] if cut < 400 else whole[: whole.rindex(b"\n", 0, -1) + 2])
    before = server.asked
    status, said = search(*usual(server, "--concurrency", "1"))
    assert status == 0, said
    again = {key: value for key, value in json.loads(Path("out.jsonl").read_text().splitlines()[-1]).items()}
    assert {**again, "seconds": 0} == {**last, "seconds": 0}
    assert Path("out.jsonl").read_bytes().count(b"\n") == 3
    assert server.asked - before == ({} if cut == 1 else {texts[2]: 1})


def test_a_prompt_that_fails_is_written_with_its_error_and_done_again_when_asked(server: Double) -> None:
    texts = prompts(4)
    server.fails(texts[1])
    status, said = search(*usual(server))
    assert status == 1
    assert "1 prompts failed; --retry-failed does them again" in said
    failed = [row for row in results() if "error" in row]
    assert [(row["id"], row["answer"]) for row in failed] == [("p1", 1)]
    assert "500: told to fail <1>" in failed[0]["error"]
    server.fails()
    before = server.asked
    status, said = search(*usual(server))
    assert (status, server.asked) == (1, before), said
    status, said = search(*usual(server, "--retry-failed"))
    assert (status, server.asked - before) == (0, {texts[1]: 1}), said
    assert Counter(row["id"] for row in results()) == {f"p{i}": 1 for i in range(4)}
    assert not any("error" in row for row in results())


def test_a_server_that_fails_everything_ends_the_run(server: Double) -> None:
    prompts(30)
    server.fails("<")
    status, said = search(*usual(server, "--give-up", "3", "--concurrency", "1"))
    assert status == 1
    assert "3 prompts failed in a row, the last one with: NothingFoundError: all 2 answers were lost" in said
    assert len(results()) == 3


def test_a_server_that_is_not_there_costs_no_prompt() -> None:
    """In a process that has imported nothing yet, as a user starts it."""
    pytest.importorskip("aiohttp", reason="aiohttp is not in this environment")
    prompts(3)
    done = midstep("search", "prompts.jsonl", "--url", "http://127.0.0.1:9/v1", "--out", "out.jsonl", *PLAN)
    status, said = done.returncode, done.stderr
    assert status == 1
    assert "Cannot connect to host 127.0.0.1:9" in said
    assert "Traceback" not in said
    assert results() == []


def test_without_what_http_needs_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    prompts(1)
    assert "pip install midstep[http]" in refused(capsys, "prompts.jsonl", "--out", "out.jsonl", *PLAN)


@pytest.mark.parametrize("where", [("--out", "a-file/out.jsonl"), ("--out", "o", "--trace", "a-file")])
def test_what_cannot_be_written_is_refused(where: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    prompts(1)
    Path("a-file").write_text("")
    assert "a-file cannot be written: " in refused(capsys, "prompts.jsonl", *where, *PLAN)


def test_an_interrupt_says_how_to_go_on(server: Double) -> None:
    prompts(400)
    child = Child(*usual(server))
    wait(lambda: Path("out.jsonl").exists() and len(results()) > 4, child)
    child.kill(signal.SIGINT)
    status, said = child.end()
    assert status == 1
    assert "interrupted; the same command goes on" in said
    assert "Traceback" not in said
    assert 0 < len(results()) < 400


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command here, see that it refuses, and return why; no server is there to be asked."""
    assert command.run(["search", *words]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', "line 2: not JSON"),
        ('{"prompt": "a"}\n[1]\n', "line 2: [1] is no object"),
        ('{"text": "a"}\n', 'line 1: it has neither of "prompt" and "messages"'),
        ('{"prompt": "a", "messages": []}\n', 'it has both of "prompt" and "messages"'),
        ('{"prompt": ""}\n{"prompt": 3}\n{"prompt": [1, "a"]}\n', "line 3: prompt = \"[1, 'a']\"; allowed: a text"),
        ('{"messages": [{"role": "user"}]}\n', "line 1: messages = "),
        ('{"id": "x", "prompt": "a"}\n\n{"id": "x", "prompt": "b"}\n', "line 3: id 'x' is that of line 1 too"),
        ('{"id": 1.5, "prompt": "a"}\n', "id = 1.5; allowed: a text or a whole number"),
        ('{"prompt": "a", "weights": 1}\n', "its field 'weights' is one that results have"),
        ('{"prompt": "a", "x": NaN}\n', "NaN is no number of JSON"),
        ('{"prompt": "a", "question": 1}\n', "question = 1; allowed: a text"),
        ("\n\n", "prompts.jsonl has no prompt"),
        ("{}\n" * 15, "and 5 more"),
    ],
)
def test_prompts_that_cannot_be_searched_are_refused_by_line(
    lines: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.jsonl").write_text(lines)
    assert says in refused(capsys, "prompts.jsonl", "--out", "out.jsonl", *PLAN)
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (PLAN, "no --out FILE is named"),
        (("--out", "prompts.jsonl", *PLAN), "is the file of the prompts"),
        (("--out", "o", "--reward", "x"), "0 searches are named (none); name one behind FILE"),
        (("--out", "o", "--best-of-n", "--rebase"), "2 searches are named (best_of_n, rebase)"),
        (("--out", "o", "--nothing.n", "3"), "no method named 'nothing' is installed"),
        (("--out", "o", "--min-p.p", "0.1"), "min_p is no search"),
        (("--out", "o", "--best-of-n.n", "0"), "best_of_n.n = 0"),
        (("--out", "o", "--best-of-n.m", "2"), "parameters of best_of_n: n"),
        (("--out", "o", "--rebase"), "rebase goes by a reward; name one with --reward"),
        (("--out", "o", "--best-of-n", "--reward", "nothing"), "no method named 'nothing'"),
        (("--out", "o", "--best-of-n", "--reward", "gone:f"), "--reward gone:f is not found: No module named 'gone'"),
        (("--out", "o", "--best-of-n", "--reward", "search_rewards:gone"), "no attribute 'gone'"),
        (("--out", "o", "--best-of-n", "--reward", "search_rewards:calls"), "is no function"),
        (("--out", "o", "--best-of-n", "--reward.url", "x"), "--reward.url is set, and no --reward NAME"),
        (("--out", "o", "--best-of-n", "--selector", "vote", "--selector.how", "x"), "vote.how = 'x'"),
        (("--out", "o", "--best-of-n", "--patience.tries", "0"), "patience.tries = 0"),
        (("--out", "o", "--best-of-n", "--budget", "0"), "--budget 0; allowed: 1 or more"),
        (("--out", "o", "--best-of-n", "--separator", ""), "--separator ''; allowed"),
        (("--out", "o", "--best-of-n", "--concurrency", "0"), "--concurrency 0; allowed: 1 or more"),
        (("--out", "o", "--best-of-n", "--engine", "sglang", "--model", "m"), "--model m: SGLang serves one model"),
        (("--out", "o", "best_of_n"), "'best_of_n' is not a method"),
    ],
)
def test_what_cannot_be_done_is_refused(words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    prompts(2)
    assert says in refused(capsys, "prompts.jsonl", *words)
    assert not Path("o").exists()


def test_results_of_something_else_are_left_alone(server: Double, capsys: pytest.CaptureFixture[str]) -> None:
    """Another setting, another prompt under an id, a prompt that is gone, a file of something else, another process."""
    prompts(2)
    assert search(*usual(server))[0] == 0
    kept = Path("out.jsonl").read_bytes()
    said = refused(capsys, *usual(server, "--seed", "2"))
    assert "out.jsonl was begun with another search, reward, seed or other setting; name another --out" in said
    Path("prompts.jsonl").write_text('{"id": "p0", "prompt": "other"}\n{"id": "p1", "prompt": "other"}\n')
    assert re.search(r"has a result of id 'p[01]' for another prompt", refused(capsys, *usual(server)))
    Path("prompts.jsonl").write_text('{"prompt": "other"}\n')
    assert "has a result of id 'p0', which is no prompt of this file" in refused(capsys, *usual(server))
    assert Path("out.jsonl").read_bytes() == kept
    prompts(2)
    for text in ("a poem\nof two", '{"a": 1}\n', "one line"):
        Path("out.jsonl").write_text(text)
        assert "line 1 of out.jsonl is no result of `midstep search`" in refused(capsys, *usual(server))
        assert Path("out.jsonl").read_text() == text


def test_a_file_belongs_to_one_process(server: Double, capsys: pytest.CaptureFixture[str]) -> None:
    prompts(300)
    child = Child(*usual(server))
    wait(lambda: bool(server.asked), child)
    assert "another process is writing out.jsonl" in refused(capsys, *usual(server))
    child.kill()
    child.end()


def test_the_readmes_commands_do_what_they_say(server: Double, here: Path) -> None:
    """Word by word, but for the address."""
    page = (ROOT / "README.md").read_text()
    (here / "my_rewards.py").write_text("from search_rewards import number as score\n")
    prompts(2)
    words = next(line for line in page.splitlines() if line.startswith("midstep search")).split()[2:]
    status, said = search(*(server.url if word.startswith("http:") else word for word in words))
    assert status == 0, said
    assert len(results("found.jsonl")) == 2
    words = next(line for line in page.splitlines() if line.startswith("midstep trace traces")).split("#")[0].split()
    assert command.run(words[1:]) == 0
    assert (here / "tree.html").read_text().startswith("<!DOCTYPE html>")


class Terminal:
    """Somebody who looks."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        """Say so."""
        return True

    def write(self, text: str) -> None:
        """Keep it."""
        self.text += text

    def flush(self) -> None:
        """Do nothing."""


def test_a_terminal_has_a_bar() -> None:
    terminal = Terminal()
    progress = Progress(4, 1, 1, terminal)  # type: ignore[arg-type]
    progress.add({"spent": {"engine": 30, "reward": 12}})
    progress.show(end="\n")
    first, *_, last = terminal.text.split("\r\x1b[K")[1:]
    assert first == "███████░░░░░░░░░░░░░░░░░░░░░░░ 1/4 prompts, 1 failed"
    assert last.startswith("███████████████░░░░░░░░░░░░░░░ 2/4 prompts, 1 failed, 42 tokens, ")
    assert last.endswith(" left\n")
