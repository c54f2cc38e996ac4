"""Every installed method keeps the laws of its kind, and the laws notice who does not."""

from collections.abc import Sequence
from dataclasses import replace
from secrets import token_hex
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor
from toy_methods import Banned, Count, Double, Replace

import midstep
from midstep import testing
from midstep.methods import Method
from midstep.searching import Path, found

INSTALLED = sorted(name for name in midstep.catalogue().methods if ":" not in name)


@pytest.mark.parametrize("name", INSTALLED)
def test_installed_methods_keep_the_laws(name: str) -> None:
    testing.check(midstep.catalogue().find(name))


@pytest.mark.parametrize("method", [Double, Banned, Count, Replace], ids=lambda method: method.name)
def test_the_tests_own_methods_keep_the_laws(method: type[Method]) -> None:
    testing.check(method)


class Lawful(midstep.LogitsProcessor):
    """Leaves the logits alone."""

    name = "lawful"

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Return them."""
        return logits


def processor(apply: Any, **more: Any) -> type[midstep.LogitsProcessor]:
    return type("Broken", (Lawful,), {"apply": apply, "__doc__": "Breaks a law.", **more})


def stop(action: int) -> type[midstep.StopController]:
    def decide(self: Any, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        return midstep.Decision(torch.full_like(rows.position, action), logits[:, 0], logits[:, 0])

    return type("Broken", (midstep.StopController,), {"decide": decide, "name": "broken", "__doc__": "Breaks a law."})


class Undescribed(midstep.Params):
    x: int = 1


class Unbounded(midstep.Params):
    x: int = Field(description="Has neither a default nor an example.")


BREAKERS: dict[str, tuple[type[Method], str]] = {
    "nan": (processor(lambda self, x, rows: x * torch.nan), "NaN"),
    "inf": (processor(lambda self, x, rows: x.masked_fill(x > 2, torch.inf)), "inf"),
    "a masked token back": (processor(lambda self, x, rows: x.nan_to_num(neginf=0.0)), "came back"),
    "an emptied row": (processor(lambda self, x, rows: x - torch.inf), "lost its last token"),
    "a wrong shape": (processor(lambda self, x, rows: x[:, 1:]), "shape"),
    "a wrong dtype": (processor(lambda self, x, rows: x.double()), "float64"),
    "a look at the neighbours": (processor(lambda self, x, rows: x - x.nan_to_num(neginf=0).mean()), "neighbours"),
    "its own noise": (processor(lambda self, x, rows: x + torch.rand(())), "shared generator|neighbours"),
    "no empty call": (processor(lambda self, x, rows: x + (x.amax() - x.amax())), "empty|dim|reduc"),
    "counting masked tokens": (processor(lambda self, x, rows: x * x.shape[1]), "counts masked"),
    "no docstring": (processor(Lawful.apply, __doc__=None, Params=midstep.Params), "no docstring"),
    "an undescribed parameter": (processor(Lawful.apply, Params=Undescribed), "no description"),
    "a parameter without example": (processor(Lawful.apply, Params=Unbounded), "no example"),
    "an action that does not exist": (stop(2), "does not exist"),
}


@pytest.mark.parametrize("law", BREAKERS)
def test_a_broken_law_is_noticed(law: str) -> None:
    method, says = BREAKERS[law]
    with pytest.raises((AssertionError, RuntimeError, IndexError), match=says):
        testing.check(method)


class ConstantReward(midstep.Reward):
    """Gives every step the same score."""

    name = "constant"

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score."""
        return [0.5] * len(steps)


class OneScore(ConstantReward):
    """Scores only the last step."""

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score."""
        return [1.0]


class Longest(midstep.Selector):
    """Prefers long answers."""

    name = "longest"

    def weigh(self, candidates: Sequence[midstep.Candidate], params: Any) -> list[float]:
        """Weigh."""
        return [float(len(c.text)) for c in candidates]


class FirstWins(Longest):
    """Depends on the order."""

    def weigh(self, candidates: Sequence[midstep.Candidate], params: Any) -> list[float]:
        """Weigh."""
        return [1.0 / (1 + i) for i in range(len(candidates))]


class Chain(midstep.Search):
    """Extends one answer to its end."""

    name = "chain"
    miscounts = 0

    @classmethod
    def width(cls, params: Any) -> int:
        """Return 1."""
        return 1

    async def run(self, problem: midstep.Problem, params: Any) -> midstep.Result:
        """Search."""
        path = Path((0,))
        most = problem.affords(path, 64, problem.purse, lambda tokens: (tokens,))
        path = await problem.open(path, most, problem.purse, whole=True).end()
        path = await problem.score(path, "last", problem.purse)
        problem.spent.engine += self.miscounts
        return found([path], [path.value])


class Miscounting(Chain):
    """Spends more than it says."""

    miscounts = -1


class Wider(Chain):
    """Keeps more continuations in flight than it says."""

    async def run(self, problem: midstep.Problem, params: Any) -> midstep.Result:
        """Search."""
        paths = [problem.open(Path((i,)), 20, problem.purse, whole=True) for i in range(2)]
        ends = [await path.end() for path in paths]
        return found(ends, [None, None])


class Unseeded(Chain):
    """Says something else each time."""

    async def run(self, problem: midstep.Problem, params: Any) -> midstep.Result:
        """Search."""
        result = await super().run(problem, params)
        return replace(result, candidates=(replace(result.best, text=token_hex()),))


class Brittle(midstep.Search):
    """Two answers, and an end to both where one is lost."""

    name = "brittle"

    @classmethod
    def width(cls, params: Any) -> int:
        """Return 2."""
        return 2

    async def run(self, problem: midstep.Problem, params: Any) -> midstep.Result:
        """Search."""
        branches = [problem.open(Path((i,)), 64, problem.purse, whole=True) for i in range(2)]
        paths = [await branch.end() for branch in branches]
        if any(path.dead for path in paths):
            raise RuntimeError("one was lost")
        return found(paths, [None, None])


class LooksAhead(ConstantReward):
    """Knows what comes later."""

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score."""
        return [1.0 / max(len(steps), 1)] * len(steps)


class OneForAll(ConstantReward):
    """Scores a batch as its first answer."""

    async def score_many(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Score."""
        return [await self.score(*asked[0])] * len(asked)


class Served(ConstantReward):
    """Needs to be told where its server is."""

    name = "served"
    remote = True

    class Params(midstep.Params):
        """Where."""

        url: str = Field(description="Of the server.", examples=["http://localhost:1"])

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score, where it is told to."""
        assert self.params.url != "http://localhost:1", "asked where nothing is"
        return [0.5] * len(steps)


def test_the_kinds_beside_the_engine_have_laws_too() -> None:
    for lawful in (ConstantReward, Longest, Chain):
        testing.check(lawful)
    breakers: list[tuple[type[Method], str]] = [
        (OneScore, "1 scores for 3 steps"), (LooksAhead, "where more came after"), (OneForAll, "in a batch"),
        (FirstWins, "order"), (Miscounting, "reports"), (Unseeded, "one seed gave two results"),
        (Wider, "2 continuations in flight, its width is 1"),
        (Brittle, "one of 2 branches failed, and all ended: one was lost"),
    ]  # fmt: skip
    for broken, says in breakers:
        with pytest.raises(AssertionError, match=says):
            testing.check(broken)


def test_a_reward_with_a_server_is_tried_where_that_is() -> None:
    """Else it must only say what it is."""
    testing.check(Served)
    assert list(testing.laws(Served)) == ["says its name, what it does and what each parameter sets"]
    here = Served.Params(url="http://here")
    assert len(testing.laws(Served, here)) == 4
    testing.check(Served, here)
