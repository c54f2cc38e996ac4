"""midstep's searches against its-hub's, on one vLLM server: prompt tokens sent, prompt tokens computed, wall seconds.

    python3.11 benchmarks/search.py      # about 12 minutes on two cores; --small: one prompt of each, kept nowhere

The same algorithm, width, steps, step length, temperature and reward on both sides; they take turns, in the reverse
order in every second round, and the server's prefix cache is emptied before each turn. its-hub has an environment
of its own, made once (needs a package index).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

import facts  # noqa: E402
import hashed  # noqa: E402
import results  # noqa: E402
from overhead import say  # noqa: E402

ITS_HUB = "its-hub[lm]==1.2.0"
THEIRS = "its_hub"
INSIDE = "inside"  # the argument of the process that starts the server
WIDTH, STEPS, STEP_TOKENS, TEMPERATURE = 16, 5, 24, 0.8
TOLD = 12  # sentences before a question
ROUNDS, LEAST = 8, 3  # LEAST: with fewer, nothing is kept
CASES = (
    ("beam", "free"),
    ("particle_filter", "free"),
    ("best_of_n", "free"),
    ("beam", "paced"),
    ("particle_filter", "paced"),
)
OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "64", "--block-size", "32", "--enable-prefix-caching")
COUNTERS = {"prompt": "vllm:prompt_tokens_total", "cached": "vllm:prompt_tokens_cached_total"}
COUNTERS |= {"generated": "vllm:generation_tokens_total"}


@dataclass(frozen=True)
class Client:
    """A running searcher.py."""

    process: subprocess.Popen[str]

    def order(self, orders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Run searches, all at once, and return what they took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(orders) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a client ended ({self.process.wait()}); what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def client(python: Path, who: str, url: str) -> Iterator[Client]:
    """Start a searcher, and end it."""
    command: list[str | Path] = [python, HERE / "searcher.py", who, url, str(TEMPERATURE)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Client(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def its_hub() -> Path:
    """Return the Python of an environment with its-hub, made once per machine."""
    from ground import places
    from ground.pip import pip

    folder = places.home() / "envs" / f"its_hub-{places.digest(ITS_HUB)}"

    def build() -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip(folder / "bin" / "python", ITS_HUB, ["install", ITS_HUB], places.begin_log(folder))

    places.make(folder, build, holds="bin/python")
    return folder / "bin" / "python"


def counted(server: Any) -> dict[str, float]:
    """Return the server's counters, once nothing runs in it any more."""
    while True:
        text = server.call("/metrics")[1]
        if not any(float(n) for n in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M)):
            break
        time.sleep(0.05)
    return {
        name: sum(float(n) for n in re.findall(rf"^{metric}\{{.*\}} (\S+)$", text, re.M))
        for name, metric in COUNTERS.items()
    }


def turn(server: Any, who: Client, orders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Let one client search with an empty prefix cache; return what it took, and what the server counted."""
    status, said = server.call("/reset_prefix_cache", b"")
    if status != 200:
        raise SystemExit(f"the server's prefix cache was not emptied: {status} {said}")
    before = counted(server)
    took = who.order(orders)
    after = counted(server)
    of = {name: after[name] - before[name] for name in before}
    sent = of["prompt"] if took["sent"] is None else took["sent"]
    return {**took, "sent": sent, "computed": of["prompt"] - of["cached"], "generated": of["generated"]}


def measure(model: str, theirs: Path, rounds: int, ours: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each turn."""
    import hashed_reward
    from engines.vllm import server as servers

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hashed_reward.installed(folder)
        os.environ["PYTHONPATH"] = f"{folder}:{HERE}:{HERE.parent / 'tests'}"
        server = stack.enter_context(servers.serve(model, folder / "log.txt", *OPTIONS))
        pythons = {THEIRS: theirs, **{who: Path(sys.executable) for who in ours}}
        clients = {who: stack.enter_context(client(python, who, server.url)) for who, python in pythons.items()}
        tasks = prompts(rounds + 1)
        for who in clients.values():
            who.order([order("beam", "free", tasks[-1], 0)])  # warms up
        for round_ in range(rounds):
            for plan, reward in CASES:
                say(f"{plan}, {reward} reward, round {round_ + 1} of {rounds}")
                for name in list(clients) if round_ % 2 else reversed(clients):
                    row = {"what": "search", "plan": plan, "reward": reward, "round": round_, "by": name}
                    yield row | turn(server, clients[name], [order(plan, reward, tasks[round_], round_)])


def prompts(count: int) -> list[str]:
    """Return questions with some things told before them, about two hundred tokens each, no two of them alike."""
    asked = facts.prompts()
    told = [one.context.strip() for one in asked]
    return [
        f"{' '.join(told[(41 * i + 7 * k) % len(told)] for k in range(TOLD))}\n\n"
        f"Write a long text about {asked[(53 * i) % len(asked)].subject}, in plain sentences."
        for i in range(count)
    ]


def order(plan: str, reward: str, task: str, seed: int) -> dict[str, Any]:
    """Return an order of searcher.py."""
    shape = {"width": WIDTH, "steps": STEPS, "step_tokens": STEP_TOKENS}
    return {"plan": plan, "reward": reward, "prompt": task, "seed": seed, **shape}


def inside(model: str, theirs: str, rounds: int, ours: Sequence[str]) -> None:
    """Measure, and print versions and rows as lines of JSON."""
    import worker

    results.end_whole()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(worker.versions()), file=answers, flush=True)
    for row in measure(model, Path(theirs), rounds, ours):
        print(json.dumps(row), file=answers, flush=True)


def main() -> None:
    """Measure, and keep the results; the process with the server comes back here for `inside`."""
    if sys.argv[1:2] == [INSIDE]:
        inside(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5].split(","))
        return
    from ground import layers
    from ground.model import paths

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--by", default="driver,endpoint", help="what of midstep's is measured")
    parser.add_argument("--small", action="store_true", help="one prompt of each; nothing is kept")
    options = parser.parse_args()
    ours = options.by.split(",")
    command: list[str | Path] = [layers.make("vllm"), HERE / "search.py", INSIDE, str(paths().real), its_hub()]
    shell = {**layers.variables("vllm"), "VLLM_SERVER_DEV_MODE": "1", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    with results.child([*command, "1" if options.small else str(ROUNDS), options.by], shell, pipe=True) as running:
        versions, rows = json.loads(running.stdout.readline()), []
        versions |= {"its_hub": ITS_HUB.partition("==")[2]}
        for line in running.stdout:
            rows.append(json.loads(line))
            say(line.strip())
            # after each round: whoever ends it early has what was measured
            done, rest = divmod(len(rows), len(CASES) * (1 + len(ours)))
            if rest == 0 and done >= LEAST and not options.small:
                print(results.write("search", versions, about(), rows, ratios=ratios(rows)), flush=True)


KEYS = {"sent": "prompt_tokens_sent_ratio", "computed": "prompt_tokens_computed_ratio", "wall": "wall_ratio"}
KEYS |= {"generated": "tokens_generated_ratio"}


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return, by search, reward and side, midstep's numbers to its-hub's: the mean of the pairs, and its interval."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for plan, reward in CASES:
        mine = [row for row in rows if (row["plan"], row["reward"]) == (plan, reward)]
        theirs = [row for row in mine if row["by"] == THEIRS]
        for by in dict.fromkeys(row["by"] for row in mine if row["by"] != THEIRS):
            ours = [row for row in mine if row["by"] == by]
            found[f"{plan}, {reward}, {by}"] = {
                key: results.ratio([row[name] for row in ours], [row[name] for row in theirs])
                for name, key in KEYS.items()
            }
    return found


def about() -> dict[str, Any]:
    """Return the configuration."""
    return {
        "model": "SmolLM2-135M-Instruct, float32",
        "server": " ".join(OPTIONS),
        "width": WIDTH,
        "steps": STEPS,
        "step_tokens": STEP_TOKENS,
        "temperature": TEMPERATURE,
        "pace": hashed.PACE,
    }


if __name__ == "__main__":
    main()
