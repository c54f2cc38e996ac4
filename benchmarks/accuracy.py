"""What searches are worth: the share of right answers against the tokens that they took, in vLLM.

    python3.11 benchmarks/accuracy.py      # about 12 minutes on two cores; what is done is kept, and not done again

SmolLM2-135M-Instruct works out sums of reasoning-gym's chain_sum behind eight that are worked out (`sums.py`). Every
search gets every task, with the same seed: so all are paired. Two rewards: the exact one, an oracle, and the same with
a share of its verdicts turned round. Neither is a model, and neither spends tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

import results  # noqa: E402
import sums  # noqa: E402
from overhead import say  # noqa: E402

INSIDE = "inside"  # the argument of the process that has the engine
TASKS, LEAST, TERMS, SEED = 120, 100, 3, 2026
FLIPS = 0.2  # the share of the noisy reward's verdicts that are turned round
TEMPERATURE = 0.6
WIDTHS = (4, 8, 16)
TOGETHER = 6  # tasks
ANSWER, STEP = 64, 24  # tokens at most
REWARDS = ("exact", "noisy")
TAU = 7
ONE, GREEDY, MAJORITY = "one sample", "greedy", "majority"


@dataclass(frozen=True)
class Use:
    """One way to answer.

    Args:
        name: of the search.
        width: answers that it has under way at once.
        reward: of REWARDS, or "none".
        plan: as midstep.search takes it.
        selector: as midstep.search takes it.
        greedy: at temperature 0.
    """

    name: str
    width: int
    reward: str
    plan: Mapping[str, Any]
    selector: Mapping[str, Any] | None = None
    greedy: bool = False

    @property
    def key(self) -> str:
        """Return its name in the results."""
        return f"{self.name} {self.width} {self.reward}"


def searches(width: int) -> dict[str, dict[str, Any]]:
    """Return the searches' parameters at a width."""
    step = {"step_tokens": STEP, "max_tokens": ANSWER, "max_steps": TERMS + 2}
    beams = {"beams": width // 4, "m": 4}
    return {
        "best_of_n": {"n": width, "max_tokens": ANSWER},
        "step_beam": {**beams, **step},
        "dvts": {"trees": width // 4, "m": 4, **step},
        "rebase": {"width": width, **step},
        "particle_filter": {"n": width, **step},
        "early_rejection": {**beams, "tau": TAU, "pause": True, **step},
    }


def uses() -> list[Use]:
    """Return every way to answer."""
    whole = {"n": 1, "max_tokens": ANSWER}
    found = [Use(GREEDY, 1, "none", {"best_of_n": whole}, greedy=True), Use(ONE, 1, "none", {"best_of_n": whole})]
    for width in WIDTHS:
        plans = searches(width)
        majority = {"vote": {"how": "majority", "equal": "text"}}
        found.append(Use(MAJORITY, width, "none", {"best_of_n": plans["best_of_n"]}, majority))
        for reward in REWARDS:
            found += [Use(name, width, reward, {name: plan}) for name, plan in plans.items()]
    return found


def rewarding(use: Use, task: sums.Sum) -> Callable[[str, Sequence[str]], list[float]] | None:
    """Return the reward of one task."""
    if use.reward == "none":
        return None
    flips = FLIPS if use.reward == "noisy" else 0.0
    # only this one asks about a step that is under way
    begun = use.name == "early_rejection"
    return lambda prompt, steps: sums.noisy(task, steps, flips, begun=begun)


async def answered(engine: Any, use: Use, task: sums.Sum, prompt: str, seed: int) -> list[int]:
    """Return whether an answer is right, and the tokens of engine and reward."""
    import midstep

    found = await midstep.search(
        engine,
        prompt,
        reward=rewarding(use, task),
        seed=seed,
        separator=sums.SEPARATOR,
        selector=use.selector,
        sampling={"temperature": 0.0} if use.greedy else {},
        question=task.expression,
        **use.plan,
    )
    return [int(sums.right(task, found.text)), found.spent.engine, found.spent.reward]


async def solve(engine: Any, task: sums.Sum, prompt: str, number: int) -> dict[str, Any]:
    """Return the row of one task: what each use found."""
    row: dict[str, Any] = {"what": "task", "number": number, "expression": task.expression, "answer": task.answer}
    return row | {"uses": {use.key: await answered(engine, use, task, prompt, number) for use in uses()}}


async def solve_all(
    engine: Any, tasks: Sequence[sums.Sum], prompts: Sequence[str], done: set[int], keep: Callable[[Any], None]
) -> None:
    """Solve each task that is not done, several at once."""
    places = asyncio.Semaphore(TOGETHER)

    async def one(number: int) -> None:
        async with places:
            keep(await solve(engine, tasks[number], prompts[number], number))

    await asyncio.gather(*(one(number) for number in range(len(tasks)) if number not in done))


def remembering(llm: Any, sampling: Mapping[str, Any]) -> Any:
    """Return vLLM as an engine that makes no continuation twice: the same ids, seed and end give the same one.

    The searches of one task begin alike, since their seeds are of addresses; what is played back is counted as made.
    """
    from midstep.searching import Call, Piece
    from midstep_vllm.driver import VLLM

    class Remembering(VLLM):
        def __init__(self) -> None:
            super().__init__(llm, sampling=sampling)
            self.made: dict[Any, tuple[int, list[Piece]]] = {}

        async def stream(self, call: Call) -> AsyncIterator[Piece]:
            key = (call.ids, call.seed, call.until, call.sampling.get("temperature"))
            most, pieces = self.made.get(key, (0, []))
            if most < call.max_tokens and not (pieces and pieces[-1].ended in ("step", "end")):
                pieces = [piece async for piece in super().stream(call)]
                self.made[key] = call.max_tokens, pieces
            for piece in pieces:
                yield piece

    return Remembering()


def inside(model: str, tasks: int, partial: str) -> None:
    """Solve tasks with one engine, and add a line of JSON per task to a file."""
    import worker
    from engines.vllm import driver
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    results.end_whole()
    path = Path(partial)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    # as it is read back: with texts for keys
    head = json.loads(json.dumps({"versions": worker.versions(), "about": about()}))
    if lines[:1] != [head]:
        # what was made otherwise does not count
        lines = [head]
        path.write_text(json.dumps(head) + "\n")
    done = {line["number"] for line in lines[1:]}
    shots = sums.generated(sums.SHOTS, TERMS, SEED + 1)
    asked = sums.generated(tasks, TERMS, SEED)

    async def run() -> None:
        usual = {**driver.USUAL, "max_num_seqs": 16 * TOGETHER, "dtype": "bfloat16", "num_gpu_blocks_override": 1024}
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **usual))
        engine = remembering(llm, {"temperature": TEMPERATURE})
        end = engine.tokenizer.eos_token
        prompts = [sums.prompt(task, shots, end) for task in asked]
        begun = time.monotonic()

        def keep(row: Any) -> None:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            done.add(row["number"])
            say(f"{len(done)} of {len(asked)} tasks, {time.monotonic() - begun:.0f} s")

        try:
            await solve_all(engine, asked, prompts, done, keep)
        finally:
            llm.shutdown()

    asyncio.run(run())


def counted(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[int, float, float]:
    """Return of one use: the right answers, and the mean tokens of engine and reward."""
    found = [row["uses"][key] for row in rows]
    return sum(one[0] for one in found), *(sum(one[i] for one in found) / len(found) for i in (1, 2))


def main() -> None:
    """Measure, and keep the results; the process with the engine comes back here for `inside`."""
    if sys.argv[1:2] == [INSIDE]:
        inside(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return
    from ground import layers, model

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"fewer than {TASKS}: nothing is published")
    parser.add_argument("--publish", action="store_true", help="keep what is done so far, if that is 100 tasks or more")
    options = parser.parse_args()
    tasks, publish = options.tasks, options.publish
    partial = HERE.parent / ".midstep" / f"accuracy-{tasks}.jsonl"
    shell = {
        **layers.variables("vllm"),
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "OMP_NUM_THREADS": "2",
    }
    command: list[str | Path] = [layers.make("vllm"), HERE / "accuracy.py", INSIDE, str(model.paths().real)]
    if not publish:
        with results.child([*command, str(tasks), partial], shell):
            pass
    head, *rows = map(json.loads, partial.read_text().splitlines())
    rows.sort(key=lambda row: row["number"])
    for use in uses():
        right, engine, reward = counted(rows, use.key)
        say(f"{use.key}: {right} of {len(rows)}, {engine:.0f} + {reward:.0f} tokens")
    if tasks == TASKS and len(rows) >= LEAST:
        print(results.write("accuracy", head["versions"], head["about"], rows))


def about() -> dict[str, Any]:
    """Return the configuration."""
    return {
        "model": "SmolLM2-135M-Instruct, bfloat16",
        "runner": "V1",
        "tasks": f"reasoning-gym chain_sum, {TERMS} one-digit terms, {sums.SHOTS} worked out before",
        "temperature": TEMPERATURE,
        "noisy": FLIPS,
        "plans": {width: searches(width) for width in WIDTHS},
    }


if __name__ == "__main__":
    main()
