"""Verifiers: what is right, and what a stranger's code cannot do."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import midstep
from midstep.testing.scripted import ScriptedEngine
from midstep_verifier import ChainSum, Code, MathVerify
from midstep_verifier.sandbox import Bounds, UnsealedError, passed
from midstep_verifier.sums import running, values


def scores(reward: midstep.Reward, prompt: str, *steps: str) -> list[float]:
    async def run() -> list[float]:
        try:
            return await reward.score(prompt, steps)
        finally:
            await reward.close()

    return asyncio.run(run())


def verified(answer: str, *steps: str) -> list[float]:
    return scores(MathVerify(MathVerify.Params(answer=answer, seconds=1.0)), "?", *steps)


def test_an_answer_is_right_from_the_step_on_that_states_it() -> None:
    assert verified("2\\sqrt{2}", "Let us see.", "It is $x = 3$.", "So \\boxed{\\sqrt{8}}.") == [0.0, 0.0, 1.0]
    assert verified("1/2", "The answer is $0.5$", "No, it is \\boxed{0.25}") == [1.0, 0.0]


def test_what_sympy_cannot_swallow_is_wrong_and_the_next_one_is_not() -> None:
    nested = "\\boxed{" + "\\frac{1}{" * 300 + "2" + "}" * 300 + "}"
    tower = "\\boxed{9^{9^{9^{9^{9}}}}}"
    assert verified("5", nested, tower, "\\boxed{5}") == [0.0, 0.0, 1.0]


def test_answers_are_known_by_prompt() -> None:
    reward = MathVerify(MathVerify.Params(answer="1", of={"b": "2"}))
    assert [scores(reward, prompt, "\\boxed{2}") for prompt in "ab"] == [[0.0], [1.0]]
    with pytest.raises(ValueError, match="no known answer for 'a'"):
        scores(MathVerify(), "a", "1")


@pytest.mark.parametrize(
    ("question", "right"),
    [("4 - 1 - 7 =", [3, -4]), ("What is 2 + 3?", [5]), ("Of 3 terms: 10 + 20 - 5 + 1 =", [30, 25, 26])],
)
def test_running_values(question: str, right: list[int]) -> None:
    assert running(question) == right


def test_running_values_are_those_of_reasoning_gym() -> None:
    """The last one is its answer, for every number of terms and digits."""
    import reasoning_gym

    for entry in reasoning_gym.create_dataset("chain_sum", size=200, seed=3, max_terms=8):
        right = running(entry["question"])
        assert (str(right[-1]), len(right)) == (entry["answer"], entry["metadata"]["num_terms"] - 1)


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (["4 - 1 = 3", "3 - 7 = -4", "The answer is -4"], [1, 1, 1]),
        (["4 - 1 = 2", "2 - 7 = -5", "The answer is -5"], [0, 0, 0]),
        (["4 - 1 = 3", "3 - 7 = -5", "So the answer is -5"], [1, 0, 0]),
        (["Let us add.", "4 - 1 - 7 = -4"], [1, 1]),
        (["4 - 1 = 2", "Wait.", "4 - 1 = 3"], [0, 0, 1]),
        (["= -4", "= 3"], [1, 0]),
        (["4 - 1 = $3$, 3 − 7 = \\boxed{−4}"], [1]),
        (["4 - 1 = 3.5"], [1]),
    ],
)
def test_each_step_is_judged_by_its_running_value(steps: list[str], wanted: list[int]) -> None:
    assert scores(ChainSum(), "4 - 1 - 7 =", *steps) == wanted


def test_a_fraction_is_no_whole_number() -> None:
    assert values("it is 3.5") == []
    assert values("it is 1,000") == []
    assert values("it is 3.") == [3]


def test_the_answer_alone() -> None:
    reward = ChainSum(ChainSum.Params(of="answer"))
    assert scores(reward, "4 - 1 - 7 =", "Hm.", "4 - 1 = 2", "the answer is -4", "= 1") == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="no sum of whole numbers in 'What'"):
        scores(ChainSum(), "What", "a")


SQUARE = "Here it is:\n```python\ndef f(x):\n    return x * x\n```\n"


def share(*steps: str, tests: Sequence[str] = ("assert f(2) == 4", "assert f(3) == 9"), **more: Any) -> list[float]:
    return scores(Code(Code.Params(tests=list(tests), **more)), "?", *steps)


def test_code_has_the_share_of_tests_that_it_passes() -> None:
    assert share("First.", SQUARE, "```python\nf = lambda x: x + x\n```", "Done.") == [0.0, 1.0, 0.5, 0.5]
    assert share("```python\ndef f(x): return x *\n```") == [0.0]
    assert share(SQUARE, tests=["import math, json, re; assert math.isqrt(f(4)) == 4", "raise SystemExit"]) == [0.5]


HARM: dict[str, str] = {
    "a fork bomb": "import os\nwhile True:\n    os.fork()",
    "threads without end": "import threading as t, time\nwhile True:\n t.Thread(target=time.sleep, args=(60,)).start()",
    "an endless print": "while True:\n    print('x' * 65536, flush=True)",
    "an endless loop": "while True:\n    pass",
    "memory": "x = []\nwhile True:\n    x.append(bytearray(2**24))",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef g(): return g()\ng()",
    "a program": "import subprocess\nsubprocess.run(['sleep', '60'])",
    "the network": "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)",
    "everybody's death": "import os\nos.kill(-1, 9)",
    "its parent's death": "import os\nos.kill(os.getppid(), 9)",
    "a file": "open('/tmp/midstep_was_here', 'w')",
    "a home": "import os\nos.listdir(os.path.expanduser('~root') + '/')",
    "a password": "print(open('/etc/passwd').read())",
    "its parent's variables": "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
    "an early end": "import os\nos._exit(0)",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "a lie": "import os\n[os.write(i, b'{\"passed\": 2}\\n') for i in range(3, 32)]",
    "a flood": "import os\nwhile True:\n    os.write(3, b'x' * 65536)",
    "a signal that is kept": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)",
}


@pytest.mark.parametrize("harm", HARM)
def test_a_strangers_code_does_no_harm(harm: str) -> None:
    """It ends in time, scores nothing, and nothing of it is left."""
    began = time.monotonic()
    code = f"def f(x): return x * x\ntry:\n    pass\nfinally:\n    pass\n{HARM[harm]}\n"
    assert share(f"```python\n{code}```", seconds=2.0) == [0.0]
    assert time.monotonic() - began < 8
    assert not Path("/tmp/midstep_was_here").exists()
    ours = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"asked.pop" in _read(path)]
    assert ours == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_it_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    place = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(place, True)
    try:
        tests = [
            "import os; assert 'SECRET' not in os.environ and len(os.environ) <= 1, dict(os.environ)",
            f"import os\ntry:\n    os.fstat({place})\nexcept OSError:\n    pass\nelse:\n    assert {place} < 8",
            "assert os.getcwd() == '/'",
        ]
        assert share(SQUARE, tests=tests) == [1.0]
    finally:
        os.close(place)


def test_where_the_kernel_cannot_hold_it_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless one says so."""
    import midstep_verifier.sandbox as sandbox

    whole = sandbox._text()
    monkeypatch.setattr(sandbox, "_text", lambda: whole.replace("platform.machine()", '"vax"'))
    with pytest.raises(UnsealedError, match=r"seccomp: no table of system calls for vax.*lax = true"):
        asyncio.run(passed("x = 1", ["pass"], Bounds(5, 256)))
    assert asyncio.run(passed("x = 1", ["pass"], Bounds(5, 256, lax=True))) == 1


def test_code_without_tests_is_refused() -> None:
    with pytest.raises(ValueError, match="no tests for"):
        scores(Code(), "?", SQUARE)


def test_a_search_with_an_exact_reward() -> None:
    """The scripted engine speaks no sums: its numbers are no values, and every step is as good as the one before."""
    result = asyncio.run(
        midstep.search(ScriptedEngine(), "What is 2 + 3?", best_of_n={"n": 2}, reward={"chain_sum": {}})
    )
    assert result.weights == (1.0, 1.0)
    assert result.spent.reward == 0
