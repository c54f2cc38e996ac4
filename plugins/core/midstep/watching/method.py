"""The kind of method that only watches a request, and the one that there is: a reward for each step."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .. import methods
from ..methods import Method

Separator = Annotated[str, Field(min_length=1, max_length=64)]


class Watch(Method):
    """Watches a request while it runs, and may end it; it touches no token."""


class StepReward(Watch):
    """Have a process reward score each step of the answer, and end what it finds too weak.

    A step ends with the token that completes a separator. Decoding never waits for the reward: its verdict is applied
    when it comes. What stands behind the last separator is not scored.
    """

    name = "step_reward"

    class Params(methods.Params):
        """What a request may set."""

        reward: str = Field(
            min_length=1,
            description="The reward: one of the server's `[rewards]`, or an installed one.",
            examples=["my_prm"],
        )
        separator: Separator | list[Separator] = Field("\n\n", description="Text that ends a step, or several.")
        do: Literal["report", "stop", "weakest"] = Field(
            "report",
            description="Nothing but report; end the answer below `below`; or end the weakest of its n samples.",
        )
        below: float | None = Field(None, description="An answer ends where its score is less.")
        keep: int = Field(1, ge=1, description="Samples that `weakest` leaves at least.")
        how: Literal["last", "min", "mean", "prod"] = Field(
            "last", description="What of its steps' scores is compared: the last, the least, their mean or product."
        )
        question: str | None = Field(
            None, min_length=1, description="What the reward reads as the question; left out: the text of the prompt."
        )

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.do == "stop" and self.below is None:
                raise ValueError('do = "stop" needs below, the score under which the answer ends')
            if self.do == "report" and self.below is not None:
                raise ValueError(f'below = {self.below} does nothing where do = "report"; send do = "stop"')
            if not self.separators or len(self.separators) > 16:
                raise ValueError(f"{len(self.separators)} separators; send 1 to 16")
            return self

        @property
        def separators(self) -> tuple[str, ...]:
            """Return the separators."""
            return (self.separator,) if isinstance(self.separator, str) else tuple(self.separator)
