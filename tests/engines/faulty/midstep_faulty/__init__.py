"""Methods that fail in every way, from a given position on, and a reward. A test installs them; nobody else should."""

import asyncio
import time
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

import midstep

SEAM = 1


class Faulty(midstep.LogitsProcessor):
    """Leaves the logits alone until `at`, and then fails in the way asked for."""

    name = "faulty"

    class Params(midstep.Params):
        """What a request may set."""

        how: Literal["raise", "nan", "empty", "shape", "dtype"] = Field("raise", description="The way to fail.")
        at: int = Field(3, ge=0, description="The position of the first failure.")

    HOW = ("raise", "nan", "empty", "shape", "dtype")

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Fail where `rows.position` has reached `at`."""
        due = rows.position >= rows.params.at
        how = {self.HOW[i] for i in rows.params.how[due].tolist()}
        if "raise" in how:
            raise RuntimeError("this method raises")
        if "shape" in how:
            return logits[:, :-1]
        if "dtype" in how:
            return logits.double()
        for name, value in (("nan", torch.nan), ("empty", -torch.inf)):
            rows_of = due & (rows.params.how == self.HOW.index(name))
            logits = torch.where(rows_of[:, None], value, logits)
        return logits


class FaultySlow(midstep.LogitsProcessor):
    """Takes its time from `at` on."""

    name = "faulty_slow"

    class Params(midstep.Params):
        """What a request may set."""

        at: int = Field(2, ge=0, description="The position of the first slow call.")
        seconds: float = Field(1.1, ge=0, description="How long such a call takes; by default, longer than allowed.")

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Sleep where `rows.position` has reached `at`."""
        due = rows.params.seconds[rows.position >= rows.params.at].tolist()
        time.sleep(max(due, default=0))
        return logits


class FaultyStop(midstep.StopController):
    """Raises, or asks for an action that does not exist."""

    name = "faulty_stop"

    class Params(midstep.Params):
        """What a request may set."""

        at: int = Field(2, ge=0, description="The position of the first failure.")

    def decide(self, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        """Raise from `at` on."""
        if bool((rows.position >= rows.params.at).any()):
            raise ValueError("this stop raises")
        nothing = torch.zeros_like(rows.position)
        return midstep.Decision(nothing, nothing.float(), nothing.float())


class FaultyRule(midstep.Sampler):
    """A keep rule that keeps nothing."""

    name = "faulty_rule"

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Keep no token."""
        return torch.zeros_like(logits, dtype=torch.bool)


class FaultyChoice(midstep.Sampler):
    """A sampler that chooses a token outside the vocabulary."""

    name = "faulty_choice"

    def sample(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Choose a token that does not exist."""
        return torch.full_like(rows.position, logits.shape[1])


class FaultyPrepare(midstep.LogitsProcessor):
    """Fails when a request is admitted, with an error that no user caused."""

    name = "faulty_prepare"

    @classmethod
    def prepare(cls, params: midstep.Params, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Raise something that is not a ValueError."""
        raise KeyError("this method cannot be prepared")

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Leave the logits alone."""
        return logits


class Force(midstep.StopController):
    """Forces a prepared sequence at a position: the seam's third action, which no shipped method uses yet."""

    name = "force"

    class Params(midstep.Params):
        """What a request may set."""

        at: int = Field(2, ge=0, description="Where the sequence begins.")
        ids: list[int] = Field(default=[40, 41, 42], description="The token ids to force.")

    @classmethod
    def prepare(cls, params: Params, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Prepare the sequence."""
        return midstep.Prepared(sequences={"ids": params.ids})

    def decide(self, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        """Force the sequence at `at`."""
        action = torch.where(rows.position == rows.params.at, midstep.FORCE, midstep.CONTINUE)
        return midstep.Decision(action, rows.position.float(), rows.params.at.float())


class Bracket(midstep.LogitsProcessor):
    """Counts its own calls per request in its state and lifts one token by the count: state and history in one."""

    name = "bracket"
    state = {"count": midstep.Column(torch.int64)}  # noqa: RUF012 - ClassVar of the base
    history = True

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Lift the last token by a tenth of the number of calls so far."""
        history = rows.history()
        last = history.ids.gather(1, (history.lengths - 1)[:, None])
        rows.state["count"] = rows.state["count"] + 1
        lift = 0.1 * rows.state["count"].float()
        return logits.scatter_add(1, last, lift[:, None])


class Vowels(midstep.Reward):
    """Likes vowels: the share of a step's letters that are. A real reward, whose optimum nobody needs to know."""

    name = "vowels"

    class Params(midstep.Params):
        """What a server may set."""

        pause: float = Field(0.0, ge=0, description="Seconds that a call takes.")
        nan: bool = Field(False, description="Whether it says NaN instead.")

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """Score each step."""
        await asyncio.sleep(self.params.pause)
        if self.params.nan:
            return [float("nan")] * len(steps)
        return [sum(letter in "aeiou" for letter in step) / max(len(step), 1) for step in steps]


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer the processors."""
    return [Faulty, FaultySlow, FaultyPrepare, Bracket]


@midstep.hookimpl
def samplers() -> Sequence[type[midstep.Sampler]]:
    """Offer the samplers."""
    return [FaultyRule, FaultyChoice]


@midstep.hookimpl
def reward_hooks() -> Sequence[type[midstep.StopController | midstep.Reward]]:
    """Offer the stops and the reward."""
    return [FaultyStop, Force, Vowels]
