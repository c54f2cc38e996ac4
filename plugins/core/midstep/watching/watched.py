"""What is known of a watched request, as plain data: from admission to the engine's core, and back to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..configuration import Configuration
from ..methods import Model
from ..searching.rewards import named_reward
from .method import StepReward

NAME = StepReward.name
REASON = f"midstep:{NAME}"
# "gone": the reward gave no score; "late": it had not when the answer ended.
Verdict = Literal["go on", "stop", "weakest", "gone", "late"]


@dataclass(frozen=True)
class Watched:
    """A request that asks for a reward of its steps.

    Args:
        params: of `StepReward`.
        question: as the reward reads it.
        prompt: how many tokens the prompt has.
        n: the samples of the user's request.
        group: names the user's request, and `sample` this one of its samples; given when it reaches the engine.
    """

    params: Mapping[str, Any]
    question: str
    prompt: int
    n: int
    group: str = ""
    sample: int = 0

    @property
    def asked(self) -> StepReward.Params:
        """Return the parameters."""
        return StepReward.Params.model_validate(dict(self.params))

    def wire(self) -> dict[str, Any]:
        """Return this as plain data; `Watched(**data)` reads it."""
        return asdict(self)


@dataclass(frozen=True)
class News:
    """What has become of one step; a later one of the same step replaces it.

    Args:
        number: of the step, from 0.
        end: how many tokens the answer has where the step ends.
        score: the reward's, None where there is none.
        verdict: None where it has not come yet.
        seconds: from the step's end to the verdict.
        tokens: that the reward was sent for it.
        fault: why there is no score.
        value: what was compared with `below`.
        ended: the answer was ended because of it.
    """

    number: int
    end: int
    score: float | None = None
    verdict: Verdict | None = None
    seconds: float | None = None
    tokens: int = 0
    fault: str = ""
    value: float | None = None
    ended: bool = False


def watched(
    params: StepReward.Params, prompt: Sequence[int], model: Model, configuration: Configuration, n: int
) -> Watched:
    """Return what the engine's core must know of a request, once, at its admission.

    Raises:
        ValueError: the server has no such reward, no tokenizer to find steps with, or there are no samples to compare.
    """
    named_reward(params.reward, configuration)
    if model.tokenizer is None:
        raise ValueError("its steps are found in the answer's text, and this server has no tokenizer")
    if params.do == "weakest" and params.keep >= n:
        raise ValueError(f'do = "weakest" with n = {n} and keep = {params.keep} ends no sample; send keep < n')
    question = params.question
    if question is None:
        question = str(model.tokenizer.decode(list(prompt), skip_special_tokens=True))
    return Watched(params.model_dump(mode="json"), question, len(prompt), n)
