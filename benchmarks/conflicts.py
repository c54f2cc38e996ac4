"""Whether guidance makes a model follow its context against what it believes: greedy and sampled answers in vLLM.

    python3.11 benchmarks/conflicts.py      # about 10 minutes on two cores

Prompts of `facts.py`, SmolLM2-135M-Instruct in float32. `mask alone` is the plausibility mask of contrastive decoding
without the contrast, the control that arXiv 2504.10020 asks for: it removes the tokens less likely than a tenth of the
best one. It cannot change a greedy answer; beside sampled ones it shows what the mask does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

import facts  # noqa: E402
import results  # noqa: E402
from facts import Prompt  # noqa: E402
from overhead import say  # noqa: E402

TOKENS = 8
SEATS = 32
INSIDE = "inside"  # the argument of the process that has the engine
MASK = {"min_p": {"p": 0.1}}
ALONE = "without the context"


@dataclass(frozen=True)
class Use:
    """One column of answers.

    Args:
        methods: as a request names them; CONTEXT and QUESTION stand for the prompt's own.
        context: whether the prompt has its context.
    """

    name: str
    temperature: float
    methods: Mapping[str, Any] | None = None
    context: bool = True


CONTEXT, QUESTION = "<context>", "<question>"
CAD = {"without": CONTEXT, "alpha": 1.0}  # its authors' weight for questions
USES = (
    Use(ALONE, 0.0, context=False),
    Use("unguided", 0.0),
    Use("mask alone", 0.0, MASK),
    Use("cad", 0.0, {"cad": CAD}),
    Use("cfg", 0.0, {"cfg": {"negative": QUESTION, "scale": 1.5}}),
    Use("m3id", 0.0, {"m3id": {"without": CONTEXT}}),
    Use("unguided, sampled", 1.0),
    Use("mask alone, sampled", 1.0, MASK),
    Use("cad, sampled", 1.0, {"cad": CAD}),
    Use("cad with the mask, sampled", 1.0, {"cad": {**CAD, "plausible": 0.1}}),
)


def methods(use: Use, prompt: Prompt) -> dict[str, Any] | None:
    """Return what a request for this prompt asks of midstep."""
    if use.methods is None:
        return None
    own = {CONTEXT: prompt.context, QUESTION: prompt.question}
    return {name: {k: own.get(v, v) for k, v in params.items()} for name, params in use.methods.items()}


def inside(model: str) -> None:
    """Answer everything with one engine, and print versions and answers as lines of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import worker
    from engines.vllm import driver
    from vllm import SamplingParams

    import midstep

    prompts = facts.prompts()
    print(json.dumps(worker.versions()), file=answers, flush=True)
    engine = driver.start(model, max_num_seqs=SEATS, max_model_len=256)
    for use in USES:
        say(f"{use.name}: {len(prompts)} prompts")
        asked = []
        for i, prompt in enumerate(prompts):
            entry = methods(use, prompt)
            extra = midstep.request(**entry) if entry else None
            asked.append(SamplingParams(temperature=use.temperature, seed=i, max_tokens=TOKENS, extra_args=extra))
        texts = [(prompt.context if use.context else "") + prompt.question for prompt in prompts]
        found = [answer.outputs[0].text for answer in engine.generate(texts, asked, use_tqdm=False)]
        print(json.dumps(found), file=answers, flush=True)
    driver.stop(engine)


def measure(model: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return the versions, and a row per prompt with its answers by use."""
    from ground import layers

    shell = {**layers.variables("vllm"), "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    command: list[str | Path] = [layers.make("vllm"), HERE / "conflicts.py", INSIDE, model]
    run = subprocess.run(command, env=shell, stdout=subprocess.PIPE, text=True, check=True)
    versions, *columns = map(json.loads, run.stdout.splitlines())
    rows = []
    for prompt, *answers in zip(facts.prompts(), *columns, strict=True):
        about = {"what": "conflicts", **{name: getattr(prompt, name) for name in ROW}}
        rows.append({**about, "answers": {use.name: text for use, text in zip(USES, answers, strict=True)}})
    return versions, rows


ROW = ("template", "relation", "subject", "told", "believed")


def counted(rows: Iterable[Mapping[str, Any]], use: str) -> dict[str, int]:
    """Return how many answers follow the context, the memory, or neither."""
    said = [facts.verdict(row["answers"][use], row["told"], row["believed"]) for row in rows]
    return {name: said.count(name) for name in ("context", "memory", "neither")}


def known(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of facts that the model tells right where no context says otherwise."""
    return [row for row in rows if facts.verdict(row["answers"][ALONE], row["told"], row["believed"]) == "memory"]


def main() -> None:
    """Measure, and keep the results; the process with the engine comes back here for `inside`."""
    if sys.argv[1:2] == [INSIDE]:
        inside(sys.argv[2])
        return
    from ground.model import paths

    versions, rows = measure(str(paths().real))
    uses = {use.name: {"temperature": use.temperature, "methods": use.methods} for use in USES}
    configuration = {"model": "SmolLM2-135M-Instruct, float32", "runner": "V1", "tokens": TOKENS, "uses": uses}
    print(results.write("conflicts", versions, configuration, rows))


if __name__ == "__main__":
    main()
