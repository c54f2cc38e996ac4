"""Small methods that the pipeline's tests run."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

import midstep


class Lift(midstep.LogitsProcessor):
    """Adds to one token's logit."""

    name = "lift"

    class Params(midstep.Params):
        """What a request may set."""

        token: int = Field(0, ge=0, description="The token.")
        by: float = Field(100.0, description="What is added.")

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Add."""
        return logits.scatter_add(1, rows.params.token[:, None], rows.params.by[:, None])


class Double(midstep.LogitsProcessor):
    """Doubles the logits; before or after `lift` makes a difference."""

    name = "double"

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Double."""
        return 2 * logits


class Count(midstep.StopController):
    """Counts its calls in its state and ends the request at `limit`, or forces a sequence there."""

    name = "count"

    class Params(midstep.Params):
        """What a request may set."""

        limit: int = Field(4, ge=1, description="How many tokens.")
        start: int = Field(0, description="Where counting starts.")
        force: bool = Field(False, description="Force 7, 8, 9 instead of ending.")

    state = {"calls": midstep.Column(torch.int64, init="start")}  # noqa: RUF012 - ClassVar of the base

    @classmethod
    def prepare(cls, params: midstep.Params, prompt: object, model: midstep.Model) -> midstep.Prepared:
        """Prepare the sequence."""
        return midstep.Prepared(sequences={"seven": (7, 8, 9)})

    def decide(self, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        """Count, and act at the limit."""
        rows.state["calls"] = rows.state["calls"] + 1
        due = rows.state["calls"] == rows.params.limit
        what = torch.where(rows.params.force, midstep.FORCE, midstep.END)
        return midstep.Decision(torch.where(due, what, 0), rows.state["calls"].float(), rows.params.limit.float())


class Replace(midstep.StopController):
    """Forces 7 and 8 in place of a drawn token, a few times."""

    name = "replace"

    class Params(midstep.Params):
        """What a request may set."""

        token: int = Field(29, ge=0, description="The token to replace.")
        times: int = Field(1, ge=0, description="How often.")

    state = {"left": midstep.Column(torch.int64, init="times")}  # noqa: RUF012 - ClassVar of the base

    @classmethod
    def prepare(cls, params: midstep.Params, prompt: object, model: midstep.Model) -> midstep.Prepared:
        """Prepare the sequence."""
        return midstep.Prepared(sequences={"seven": (7, 8)})

    def decide(self, logits: Tensor, rows: midstep.Rows) -> midstep.Decision:
        """Stand by while some are left; what is left shows in the value."""
        left = rows.state["left"]
        rows.state["left"] = (left - 1).clamp_min(0)
        what = torch.where(left > 0, midstep.FORCE, midstep.CONTINUE)
        return midstep.Decision(what, left.float(), torch.zeros_like(left).float(), instead_of=rows.params.token)


class Last(midstep.Sampler):
    """Keeps only tokens that the history does not hold."""

    name = "last"
    history = True
    on = "untempered"

    def keep(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Keep what is new."""
        ids, lengths = rows.history()
        real = torch.arange(ids.shape[1])[None] < lengths[:, None]
        seen = torch.zeros_like(logits).scatter_add_(1, ids.clamp_min(0), real.float())
        return seen == 0


class Second(midstep.Sampler):
    """Chooses the second best token."""

    name = "second"

    def sample(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Choose."""
        return logits.topk(2, -1).indices[:, 1]


class Banned(midstep.LogitsProcessor):
    """Bans prepared ids."""

    name = "banned"

    class Params(midstep.Params):
        """What a request may set."""

        ids: list[int] = Field(default=[1], description="The ids.")

    @classmethod
    def prepare(cls, params: Params, prompt: object, model: midstep.Model) -> midstep.Prepared:
        """Hand the ids over as a ragged row."""
        return midstep.Prepared(columns={"strength": 50.0}, ids={"banned": params.ids} if params.ids else {})

    def apply(self, logits: Tensor, rows: midstep.Rows) -> Tensor:
        """Ban them."""
        if not rows.ids:
            return logits
        ids, lengths = rows.ids["banned"]
        real = torch.arange(ids.shape[1])[None] < lengths[:, None]
        return logits.scatter_add(1, ids.clamp_min(0), -rows.params.strength[:, None] * real)


PROCESSORS = [Lift, Double, Banned]
SAMPLERS = [Last, Second]
STOPS = [Count, Replace]
