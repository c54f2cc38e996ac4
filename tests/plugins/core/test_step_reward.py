"""A plain request's steps, found on token ids and judged in a real process of an outsider's reward."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import installed

import midstep
from midstep.configuration import Configuration
from midstep.searching import Boundary
from midstep.watching.steps import Reading
from midstep.watching.watched import News, Watched
from midstep.watching.watcher import Watcher

OUTSIDERS = str(Path(__file__).parents[2] / "engines" / "faulty")
SECONDS = 120  # until a process has started, which imports torch; a deadline, not a wait


class Letters:
    """A tokenizer of one letter per token."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))


def ids(text: str) -> list[int]:
    return list(map(ord, text))


def rule(text: str) -> float:
    return sum(map(ord, text)) % 100 / 100


@pytest.fixture(scope="module")
def outsiders() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [OUTSIDERS, before]))
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


CONFIGURATION = Configuration.model_validate(
    {
        "rewards": {
            "hasty": {"use": "judged_sleeps", "patience": {"timeout": 0.1, "tries": 1}},
            "stubborn": {"use": "judged_raises", "patience": {"tries": 2, "backoff": 0.01}},
        }
    }
)


@pytest.fixture(scope="module")
def watcher(outsiders: None) -> Iterator[Watcher]:
    made = Watcher(CONFIGURATION, Letters)
    yield made
    made.close()


class Pieces:
    """A tokenizer of a few texts, two of them halves of one letter."""

    TEXTS = (b"a", b" ", b"\n", b"\n\n", b"x\ny", b"##", b"#", b"b#", b"\xc3", b"\xa9", b"")

    def decode(self, ids: list[int], **_: Any) -> str:
        return b"".join(self.TEXTS[i] for i in ids).decode(errors="replace")


@pytest.mark.parametrize("until", [("\n\n",), ("#", "\n"), ("###",), ("é",), ("é\n", "ab"), (" ",), ("a ", "y")])
def test_few_looks_find_what_many_do(until: tuple[str, ...]) -> None:
    """Where a token's own text cannot end a separator no text is made, and nothing is missed."""
    drawn, tokenizer = random.Random(3), Pieces()
    looks = 0

    def decode(ids: Any) -> str:
        nonlocal looks
        looks += 1
        return tokenizer.decode(ids)

    for _ in range(200):
        tokens = [drawn.randrange(len(Pieces.TEXTS)) for _ in range(60)]
        ends: list[list[int]] = []
        for boundary in (lambda: Boundary(until, decode), Reading(tokenizer, until).boundary):
            ends.append([])
            begin, found = 0, boundary()
            while (count := found.find(tokens[begin:])) is not None:
                begin, found = begin + count, boundary()
                ends[-1].append(begin)
        assert ends[0] == ends[1], tokens
    assert looks >= 200 * 30


def watched(n: int = 1, sample: int = 0, group: str = "g", **params: Any) -> Watched:
    return Watched({"separator": ";", **params}, "Why?", 5, n, group, sample)


def settled(watcher: Watcher, key: str, done: Callable[[dict[int, News]], bool]) -> list[News]:
    """Poll as an engine does until what is known of a request's steps is `done`; return it."""
    known: dict[int, News] = {}
    end = time.monotonic() + SECONDS
    while not done(known):
        assert time.monotonic() < end, known
        watcher.poll()
        known |= {one.number: one for one in watcher.news(key)}
        time.sleep(0.005)
    return [known[number] for number in sorted(known)]


def all_judged(count: int) -> Callable[[dict[int, News]], bool]:
    return lambda known: len(known) == count and all(one.verdict for one in known.values())


def facts(steps: list[News]) -> list[tuple[Any, ...]]:
    return [(one.end, one.score, one.verdict) for one in steps]


def test_steps_are_found_and_scored(watcher: Watcher) -> None:
    """Each as its separator is complete, however the tokens come; blanks between separators are no step."""
    watcher.begin("a", watched(reward="judged"))
    for part in ("on", "e;t", "wo; ;thr", "ee;", "rest"):
        watcher.see("a", ids(part))
    found = settled(watcher, "a", all_judged(3))
    assert facts(found) == [(4, rule("one"), "go on"), (8, rule("two"), "go on"), (16, rule(" ;three"), "go on")]
    assert all(one.seconds is not None and 0 <= one.seconds < SECONDS for one in found)
    # one question is under way at a time; each costs what was read before and what is new
    assert sum(one.tokens for one in found) >= 16 + 5
    assert watcher.ended("a") is None
    watcher.end("a")
    assert "a" not in watcher


def test_a_score_below_ends_the_request(watcher: Watcher) -> None:
    """Below what the request says, and not at it; the scores before count as the request says."""
    low = rule("bb")
    assert low < rule("a")
    watcher.begin("last", watched(reward="judged", do="stop", below=low + 0.005))
    watcher.begin("at", watched(reward="judged", do="stop", below=low))
    watcher.begin("mean", watched(reward="judged", do="stop", below=low + 0.005, how="mean"))
    for key in ("last", "at", "mean"):
        watcher.see(key, ids("a;bb;c;"))
    found = facts(settled(watcher, "last", all_judged(3)))
    assert found == [(2, rule("a"), "go on"), (5, low, "stop"), (7, rule("c"), "go on" if rule("c") > low else "stop")]
    for key in ("at", "mean"):
        assert [one.verdict for one in settled(watcher, key, all_judged(3))] == ["go on"] * 3
    ended = watcher.ended("last")
    assert ended is not None
    assert (ended.number, ended.value) == (1, low)
    assert watcher.ended("at") is None
    assert watcher.ended("mean") is None
    for key in ("last", "at", "mean"):
        watcher.end(key)


def test_of_the_samples_the_weakest_ends(watcher: Watcher) -> None:
    """At each step that all live ones have; ties end the later; until `keep` are left."""
    texts = {"w0": "m;m;", "w1": "b;", "w2": "m;c;"}  # b is the least, then c
    assert rule("b") != rule("m")
    assert rule("c") != rule("m")
    order = sorted(("b", "m"), key=rule)
    for sample, key in enumerate(texts):
        watcher.begin(key, watched(3, sample, "three", reward="judged", do="weakest"))
    for key, text in texts.items():
        watcher.see(key, ids(text))
        settled(watcher, key, all_judged(text.count(";")))
    first = "w1" if order[0] == "b" else "w2"  # of the two m, the later one
    assert [key for key in texts if watcher.ended(key)] == sorted({first, *_second(texts, first)})
    for key in texts:
        watcher.end(key)


def _second(texts: dict[str, str], first: str) -> list[str]:
    """Work out by hand who ends at the second step: the least of those left, if all have one."""
    left = {key: text.split(";")[1] for key, text in texts.items() if key != first}
    return [] if not all(left.values()) else [min(left, key=lambda key: (rule(left[key]), -int(key[1])))]


def test_who_ends_by_himself_is_kept_and_frees_the_others(watcher: Watcher) -> None:
    """With keep = 2 of 3, one that ended by itself counts as left; the other two are compared without it."""
    for sample in range(3):
        watcher.begin(f"k{sample}", watched(3, sample, "kept", reward="judged", do="weakest", keep=2))
    for sample, text in ((1, "p;"), (2, "q;")):
        watcher.see(f"k{sample}", ids(text))
        settled(watcher, f"k{sample}", all_judged(1))
    assert not any(watcher.ended(f"k{sample}") for sample in range(3))  # the first has no step yet
    watcher.end("k0")
    lower = min((1, 2), key=lambda sample: rule("_pq"[sample]))
    assert [bool(watcher.ended(f"k{sample}")) for sample in (1, 2)] == [sample == lower for sample in (1, 2)]
    for sample in (1, 2):
        watcher.end(f"k{sample}")


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("hasty", "no answer within 0.1 s"),
        ("stubborn", "RuntimeError: this reward raises"),
        ("judged_dies", "its process ended with code 3"),
        ("nothing", "the reward could not be made"),
    ],
)
def test_a_reward_that_fails_is_gone_and_said_so(watcher: Watcher, reward: str, says: str) -> None:
    watcher.begin("f", watched(reward=reward, do="stop", below=1.0))
    watcher.see("f", ids("one;"))
    (step,) = settled(watcher, "f", all_judged(1))
    assert (step.verdict, step.score, watcher.ended("f")) == ("gone", None, None)
    assert says in step.fault
    watcher.end("f")


def test_a_process_that_died_is_begun_anew(watcher: Watcher) -> None:
    """The new one learns every step that there was."""
    watcher.begin("r", watched(reward="judged"))
    watcher.see("r", ids("one;"))
    settled(watcher, "r", all_judged(1))
    judge = watcher._judges["judged"]
    assert judge._process is not None
    assert judge._process._child is not None
    os.kill(judge._process._child.pid, signal.SIGKILL)
    while not judge._process.dead:
        time.sleep(0.01)
    watcher.see("r", ids("two;"))
    (gone,) = settled(watcher, "r", lambda known: 1 in known and bool(known[1].verdict))
    assert (gone.number, gone.verdict) == (1, "gone")
    assert "begun anew later" in gone.fault
    time.sleep(1.1)  # its rest
    watcher.see("r", ids("three;"))
    (last,) = settled(watcher, "r", lambda known: 2 in known and bool(known[2].verdict))
    assert facts([last]) == [(14, rule("three"), "go on")]
    watcher.end("r")


@pytest.mark.usefixtures("outsiders")
def test_limits_bind() -> None:
    """What one request may spend on rewards is shared by its samples; the rest is said to be over the limit."""
    limited = Configuration.model_validate({"limits": {"reward_tokens": 16}})
    made = Watcher(limited, Letters)
    try:
        for sample in range(2):
            made.begin(f"l{sample}", watched(2, sample, reward="judged"))
        made.see("l0", ids("one;"))  # 5 + 4
        assert facts(settled(made, "l0", all_judged(1))) == [(4, rule("one"), "go on")]
        made.see("l1", ids("other;"))  # 5 + 6 > 7
        (step,) = settled(made, "l1", all_judged(1))
        assert (step.verdict, step.tokens) == ("gone", 0)
        assert "7 of 16 reward tokens are left (limits.reward_tokens), and this step would cost 11" in step.fault
    finally:
        made.close()


@pytest.mark.usefixtures("outsiders")
def test_no_process_outlives_its_engine() -> None:
    """Not even where the engine is killed."""
    import subprocess

    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from test_step_reward import *\n"
        "made = Watcher(CONFIGURATION, Letters); made.begin('a', watched(reward='judged'))\n"
        "made.see('a', ids('one;'))\n"
        "settled(made, 'a', all_judged(1)); print(made._judges['judged']._process._child.pid, flush=True)\n"
        "time.sleep(100)"
    )
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder.parents[1]), os.environ["PYTHONPATH"]])
    engine = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert engine.stdout is not None
    judge = int(engine.stdout.readline())
    engine.kill()
    engine.wait()
    engine.stdout.close()
    end = time.monotonic() + SECONDS
    while Path(f"/proc/{judge}/stat").exists() and "Z" not in Path(f"/proc/{judge}/stat").read_text().split()[2]:
        assert time.monotonic() < end
        time.sleep(0.05)


class Fixed(midstep.Reward):
    """An installed reward."""

    name = "fixed"

    async def score(self, prompt: str, steps: Any) -> list[float]:
        return [1.0] * len(steps)


def admitted(n: int = 1, tokenizer: Any = None, configuration: Any = None, **params: Any) -> midstep.Admission | None:
    asked = midstep.parse(midstep.request(step_reward={"reward": "fixed", **params}), configuration)
    assert asked is not None
    model = midstep.Model(200, tokenizer or Letters())
    return midstep.admit(
        asked, ids("Why?"), midstep.Sampling(), model, configuration=configuration, n=n, serves=everything
    )


def everything(method: Any, prepared: Any) -> None:
    """Refuse nothing."""


def test_a_watched_request_is_not_drawn() -> None:
    """Its tokens are the engine's own; with another method they are midstep's."""
    with installed(reward_hooks=[Fixed]):
        alone = admitted()
        assert alone is not None
        assert not alone.drawn
        assert alone.uses == ()
        assert alone.watch is not None
        assert (alone.watch.question, alone.watch.prompt) == ("Why?", 4)
        again = midstep.Admission.unwire(alone.stamped("k", 1, "g").wire())
        assert again.watch == replace(alone.watch, group="g", sample=1)
        asked = midstep.parse(midstep.request(step_reward={"reward": "fixed"}, trace=True))
        assert asked is not None
        both = midstep.admit(asked, [1], midstep.Sampling(), midstep.Model(200, Letters()), serves=everything)
        assert both is not None
        assert both.drawn
        assert both.watch is not None


@pytest.mark.parametrize(
    ("params", "n", "says"),
    [
        ({"reward": "fixd"}, 1, "no method named 'fixd'.*installed: .*fixed"),
        ({"separator": ""}, 1, "at least 1 character"),
        ({"separator": []}, 1, "0 separators"),
        ({"below": 0.5}, 1, "does nothing where do"),
        ({"do": "stop"}, 1, "needs below"),
        ({"do": "stop", "below": float("nan")}, 1, "below|JSON"),
        ({"do": "weakest"}, 1, "n = 1 and keep = 1"),
        ({"do": "weakest", "keep": 3}, 3, "n = 3 and keep = 3"),
    ],
)
def test_what_cannot_be_judged_is_refused(params: dict[str, Any], n: int, says: str) -> None:
    with installed(reward_hooks=[Fixed]), pytest.raises(ValueError, match=says):
        admitted(n, **params)


def test_no_tokenizer_no_steps() -> None:
    with installed(reward_hooks=[Fixed]):
        asked = midstep.parse(midstep.request(step_reward={"reward": "fixed"}))
        assert asked is not None
        with pytest.raises(ValueError, match="has no tokenizer"):
            midstep.admit(asked, [1], midstep.Sampling(), midstep.Model(200), serves=everything)
        with pytest.raises(ValueError, match="nobody judges steps"):
            midstep.admit(asked, [1], midstep.Sampling(), midstep.Model(200, Letters()))


def test_the_report_tells_each_step() -> None:
    """Verdicts, what came late, the stop, and the tokens spent."""
    with installed(reward_hooks=[Fixed]):
        found = admitted(do="stop", below=0.5)
    assert found is not None
    ledger = midstep.Ledger(found.stamped("k"))
    ledger.judged([News(0, 3), News(1, 6), News(2, 30)])
    ledger.judged([News(0, 3, 0.25, "stop", 0.5, 12, value=0.25, ended=True)])
    report = ledger.report(9)
    assert report.steps is not None
    assert report.stop is not None
    assert [(s.end, s.score, s.verdict, s.seconds) for s in report.steps] == [
        (3, 0.25, "stop", 0.5),
        (6, None, "late", None),
    ]
    assert (report.stop.rule, report.stop.position, report.stop.value, report.stop.threshold) == (
        "step_reward",
        8,
        0.25,
        0.5,
    )
    assert (report.tokens.reward, report.seed, list(report.methods)) == (12, None, ["step_reward"])
