"""A search's trace, drawn: what it holds, and what a real browser makes of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from commands import main

import midstep
from midstep import drawing
from midstep.testing.scripted import NumberReward, ScriptedEngine

HOSTILE = 'Sum </script><script>document.title = "broken"</script> <b>@@TRACE@@</b>'


def traced(engine: ScriptedEngine | None = None, **plan: Any) -> dict[str, Any]:
    """Search, and return the trace as JSON has it."""
    engine = engine or ScriptedEngine(steps=5)
    result = asyncio.run(midstep.search(engine, HOSTILE, reward=NumberReward(), seed=3, **plan))
    return json.loads(json.dumps(result.trace))  # type: ignore[no-any-return]


BEAMS = {"step_beam": {"beams": 3, "m": 4}}


def test_a_trace_adds_up_and_says_which_answer_was_chosen() -> None:
    """Each branch has its own step's tokens and text; on the way to the chosen answer they make up all of it."""
    for plan in (BEAMS, {"particle_filter": {"n": 8}}, {"best_of_n": {"n": 4}}):
        trace = traced(**plan)
        nodes = trace["nodes"]
        way = [nodes[address] for address in above(trace["chosen"])]
        assert "".join(node["text"] for node in way) == trace["text"]
        assert [sum(node["step"] for node in way[: i + 1]) for i in range(len(way))] == [n["tokens"] for n in way]
        assert way[-1]["fate"] == "end"
        best = max(range(len(trace["weights"])), key=lambda i: trace["weights"][i])
        assert nodes[trace["candidates"][best]]["value"] == way[-1]["value"]
        assert sum(node["step"] for node in nodes.values()) + trace["spent"]["discarded"] == trace["spent"]["engine"]
        assert trace["question"] == HOSTILE


def above(address: str) -> list[str]:
    """Return the addresses on the way to one."""
    parts = address.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def test_a_page_needs_nothing_beside_it() -> None:
    """No address but SVG's name, and no text of a model that becomes code."""
    text = drawing.page(traced(**BEAMS))
    assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]
    assert text.count("<script") == 2
    assert "default-src 'none'" in text
    assert "@@STYLE@@" not in text


def test_the_command_draws_a_page_or_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = traced(**BEAMS)
    file, page = tmp_path / "trace.json", tmp_path / "page.html"
    file.write_text(json.dumps(trace))
    assert main(["trace", str(file), "--html", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}: {len(trace['nodes'])} branches\n"
    assert page.read_text() == drawing.page(trace)
    assert main(["trace", str(file)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    spent = trace["spent"]
    assert first == f"step_beam: {spent['engine']} tokens of the engine, {spent['reward']} of the reward"
    assert len(lines) == len(trace["nodes"])
    assert sum("pruned (not among the best 3)" in line for line in lines) == fates(trace).count("pruned")
    assert [line.split()[2].rstrip(":") for line in lines if line.startswith("*")] == above(trace["chosen"])


def test_only_a_search_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.json"
    file.write_text('{"choices": []}')
    assert main(["trace", str(file), "--html", str(tmp_path / "page.html")]) == 1
    assert "is no trace of a search, which --html draws" in capsys.readouterr().err


def fates(trace: dict[str, Any]) -> list[str]:
    return [node["fate"].split()[0] for node in trace["nodes"].values()]


@pytest.fixture
def window(tmp_path: Path) -> Iterator[browser.Browser]:
    with browser.Browser(tmp_path) as opened:
        yield opened


def show(window: browser.Browser, folder: Path, trace: dict[str, Any]) -> None:
    """Load a trace's page."""
    (folder / "page.html").write_text(drawing.page(trace))
    window.open(folder / "page.html")


def count(window: browser.Browser, selector: str) -> int:
    return int(window.run("return document.querySelectorAll(arguments[0]).length", selector))


@pytest.mark.long
@pytest.mark.skipif(not browser.THERE, reason=browser.WHY_NOT)
def test_a_browser_shows_the_tree_and_its_texts(window: browser.Browser, tmp_path: Path) -> None:
    """All branches in picture and list; pruned, dead and chosen ones marked; a click and keys open texts."""
    dying = ScriptedEngine(steps=5, dies=lambda call: "lost it" if call.seed % 11 == 0 else None)
    trace = traced(dying, **BEAMS)
    nodes, chosen = trace["nodes"], trace["chosen"]
    show(window, tmp_path, trace)
    assert window.run("return document.title").startswith("step_beam: Sum </script>")
    for host, item in (("#picture svg", "circle.node"), ("#tree", "li")):
        assert count(window, f"{host} {item}") == len(nodes)
        assert count(window, f"{host} {item}.pruned") == fates(trace).count("pruned") > 0
        assert count(window, f"{host} {item}.fault") == fates(trace).count("fault") > 0
        assert count(window, f"{host} {item}.on-path") == chosen.count(".") + 1
    assert count(window, "#picture path.edge.chosen") == chosen.count(".") + 1
    assert "★ chosen" in window.run("return document.getElementById(arguments[0]).textContent", f"n-{chosen}")
    totals = window.run("return document.getElementById('totals').innerText")
    assert f"tokens of the engine\n{trace['spent']['engine']}\n" in totals
    # colours follow the scores
    by_value = {node["value"]: address for address, node in nodes.items() if node["value"] is not None}
    fill = "return document.querySelector(`circle[data-address='${arguments[0]}']`).getAttribute('fill')"
    assert window.run(fill, by_value[max(by_value)]) != window.run(fill, by_value[min(by_value)])
    # a click in the list, then in the picture
    died = next(address for address, node in nodes.items() if node["fate"] == "fault")
    window.click(f"li[id='n-{died}'] > .row .said")
    opened = "return [...document.querySelectorAll('.text')].map((text) => [text.parentNode.id, text.innerText])"
    ((name, text),) = window.run(opened)
    assert name == f"n-{died}"
    assert "ConnectionError: lost it" in text
    window.click(f"circle[data-address='{chosen}']")
    ((name, text),) = window.run(opened)
    assert name == f"n-{chosen}"
    assert nodes[chosen]["text"].strip() in text
    assert "tokens of the step" in text
    assert window.complaints() == []


@pytest.mark.long
@pytest.mark.skipif(not browser.THERE, reason=browser.WHY_NOT)
def test_a_browser_obeys_the_keys(window: browser.Browser, tmp_path: Path) -> None:
    """As a tree of the accessibility guidelines does; the selected branch alone is reached by the tabulator."""
    trace = traced(**BEAMS)
    show(window, tmp_path, trace)
    where = "return document.activeElement.id"
    window.run("document.querySelector('#tree [tabindex=\"0\"]').focus()")
    assert window.run(where) == f"n-{trace['chosen']}"
    way = above(trace["chosen"])
    window.press("ArrowLeft")
    assert window.run(where) == f"n-{way[-2]}"
    window.press("ArrowLeft")
    assert window.run("return document.activeElement.getAttribute('aria-expanded')") == "false"
    window.press("ArrowRight", "ArrowRight")
    assert window.run("return document.activeElement.parentNode.parentNode.id") == f"n-{way[-2]}"
    window.press("Home")
    assert window.run(where) == f"n-{next(iter(trace['nodes']))}"
    window.press("ArrowDown", "ArrowUp", "Enter")
    assert count(window, ".text") == 1
    window.press("Enter")
    assert count(window, ".text") == 0
    assert count(window, '#tree [tabindex="0"]') == 1
    window.click("#close-all")
    assert window.run("return [...document.querySelectorAll('#tree li')].filter((i) => i.offsetParent).length") == len(
        [address for address in trace["nodes"] if "." not in address]
    )
    window.click("#hide")
    window.click("#open-all")
    seen = window.run("return [...document.querySelectorAll('#tree li')].filter((i) => i.offsetParent).length")
    assert seen == len(trace["nodes"]) - fates(trace).count("pruned")
    assert window.complaints() == []


@pytest.mark.long
@pytest.mark.skipif(not browser.THERE, reason=browser.WHY_NOT)
@pytest.mark.parametrize(
    ("engine", "plan"),
    [
        (ScriptedEngine(steps=24), {"rebase": {"width": 64}}),
        (ScriptedEngine(), {"best_of_n": {"n": 1000}}),
        (ScriptedEngine(steps=40), {"step_beam": {"beams": 2, "m": 2, "max_steps": 60}}),
    ],
    ids=["many", "wide", "deep"],
)
def test_a_large_tree_stays_readable(
    window: browser.Browser, tmp_path: Path, engine: ScriptedEngine, plan: dict[str, Any]
) -> None:
    """It is there at once; nothing is wider than the window; the chosen branch is in sight, in list and picture."""
    trace = traced(engine, **plan)
    show(window, tmp_path, trace)
    assert count(window, "circle.node") == len(trace["nodes"])
    seconds = window.run("return performance.getEntriesByType('navigation')[0].domComplete") / 1000
    assert seconds < 5
    assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
    star = window.run(
        "const box = document.querySelector('.star').getBoundingClientRect(), "
        "host = document.getElementById('picture').getBoundingClientRect();"
        "return box.top >= host.top && box.bottom <= host.bottom && box.right <= host.right"
    )
    assert star
    window.click("#open-chosen")
    inside = "const box = document.activeElement.firstChild.getBoundingClientRect(); return [box.top, box.width]"
    top, width = window.run(inside)
    assert 0 <= top < 900
    assert width > 250
    radius = "return Math.min(...[...document.querySelectorAll('circle.node')].map((dot) => dot.r.baseVal.value))"
    assert window.run(radius) > 2
    assert window.complaints() == []
