"""Experts beside the model: a row is moved by what an expert says and an anti-expert, or an amateur, does not.

    proxy_tuning, dexperts:  y = x + a (u_expert - u_anti)
    contrastive:             y = s x + w (x - u_amateur)

Each of them is the served model under an adapter that the request names, a prompt of its own, or both. Liu, Han, Wang,
Tsvetkov, Choi, Smith 2024, "Tuning language models by proxy" (arXiv 2401.08565); Liu, Sap, Lu, Swayamdipta,
Bhagavatula, Smith, Choi 2021, "DExperts" (arXiv 2105.03023); Li, Holtzman, Fried, Liang, Eisner, Hashimoto,
Zettlemoyer, Lewis 2023, "Contrastive decoding" (arXiv 2210.15097); O'Brien, Lewis 2023 (arXiv 2309.09117).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

import midstep
from midstep.contrast import plausible
from midstep.methods import OWN
from midstep.prompts import Prompt, Wears
from midstep.roles import ITSELF, cast, role
from midstep.statistics import Statistics

SEAM = 1

EXPERT = 'What the expert wears: "lora:NAME", "base" (no adapter) or "own" (what the request wears).'
ANTI = "What the anti-expert wears, likewise."
AMATEUR = 'What the amateur wears: "lora:NAME", "base" (no adapter) or "own" (what the request wears).'
PROMPT = "Its prompt: text, token ids or messages. None: the request's own."


class ProxyTuning(midstep.Guide):
    """Proxy tuning: moves the row by the difference of an expert and an anti-expert."""

    name = "proxy_tuning"

    class Params(midstep.Params):
        """What a request may set."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"expert_prompt": [3], "anti_prompt": [1, 2]}]})

        expert: Wears = Field(examples=["base"], description=EXPERT)
        anti: Wears = Field("base", description=ANTI)
        scale: float = Field(1.0, ge=-100, le=100, description="How far: 0 is the row itself, below 0 the other way.")
        expert_prompt: Prompt | None = Field(None, description=PROMPT)
        anti_prompt: Prompt | None = Field(None, description=PROMPT)

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Encode the prompts, and leave out who says what the request's own row says."""
        roles = {
            "expert": role(params.expert, params.expert_prompt, prompt, model),
            "anti": role(params.anti, params.anti_prompt, prompt, model),
        }
        return midstep.Prepared(companions=cast(roles, prompt, model))

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        """Say how far each row is moved: towards the expert, away from the anti-expert."""
        scale = rows.params.scale
        return midstep.Contrast({"expert": -scale, "anti": scale})


class DExperts(midstep.Guide):
    """DExperts: proxy tuning of what top-p leaves of the row, with an expert, an anti-expert, or both."""

    name = "dexperts"

    class Params(midstep.Params):
        """What a request may set."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"anti": "base", "anti_prompt": [1, 2]}]})

        expert: Wears | None = Field(None, description=f"{EXPERT} None: the row itself, unfiltered.")
        anti: Wears | None = Field(None, description=f"{ANTI} None: the row itself, unfiltered.")
        alpha: float = Field(2.0, ge=-100, le=100, description="How far: 0 is the row itself, below 0 the other way.")
        filter_p: float = Field(
            0.9, ge=0, le=1, description="Top-p of the row before it is moved, at temperature 1; 1 removes nothing."
        )
        expert_prompt: Prompt | None = Field(None, description=PROMPT)
        anti_prompt: Prompt | None = Field(None, description=PROMPT)

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Encode the prompts; whoever is not named is the request's own row."""
        for who in ("expert", "anti"):
            if getattr(params, who) is None and getattr(params, f"{who}_prompt") is not None:
                raise ValueError(f'{who}_prompt without {who}; name what it wears too: "{who}": "base"')
        roles = {
            "expert": role(params.expert or OWN, params.expert_prompt, prompt, model),
            "anti": role(params.anti or OWN, params.anti_prompt, prompt, model),
        }
        return midstep.Prepared(companions=cast(roles, prompt, model))

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        """Say how far each row is moved, and what is removed from it."""
        alpha = rows.params.alpha
        return midstep.Contrast({"expert": -alpha, "anti": alpha}, share=rows.params.filter_p)


class Contrastive(midstep.Guide):
    """Contrastive decoding: away from an amateur, among the tokens that the request's own row finds plausible."""

    name = "contrastive"

    class Params(midstep.Params):
        """What a request may set."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"amateur_prompt": [1, 2]}]})

        amateur: Wears = Field("base", description=AMATEUR)
        amateur_prompt: Prompt | None = Field(None, description=PROMPT)
        form: Literal["ratio", "difference"] = Field(
            "ratio",
            description="ratio: x - coef u / tau (Li et al.). difference: (1 + beta) x - beta u (O'Brien and Lewis).",
        )
        plausible: float = Field(
            0.1, ge=0, le=1, description="A token less likely than this share of the row's best one is removed."
        )
        coef: float = Field(1.0, ge=0, le=100, description="With ratio: how far; 0 is the row itself.")
        tau: float = Field(0.5, ge=0.01, le=100, description="With ratio: the amateur's temperature.")
        beta: float = Field(0.5, ge=0, le=100, description="With difference: how far; 0 is the row itself.")

    @classmethod
    def prepare(cls, params: Any, prompt: Sequence[int], model: midstep.Model) -> midstep.Prepared:
        """Encode the prompt, and put both forms into the same two numbers."""
        amateur = role(params.amateur, params.amateur_prompt, prompt, model)
        away = params.coef / params.tau if params.form == "ratio" else params.beta
        scale = 1.0 - away if params.form == "ratio" else 1.0
        companions = cast({ITSELF: role(OWN, None, prompt, model), "amateur": amateur}, prompt, model)
        return midstep.Prepared(columns={"away": away, "rest": scale}, companions=companions)

    def contrast(self, own: Callable[[], Statistics], rows: midstep.Rows) -> midstep.Contrast:
        """Say how far each row is moved, and what is removed from it."""
        params = rows.params
        floor = plausible(params.plausible, own())
        return midstep.Contrast({"amateur": params.away}, floor, scale=params.rest)


@midstep.hookimpl
def logits_processors() -> Sequence[type[midstep.LogitsProcessor]]:
    """Offer the experts."""
    return [ProxyTuning, DExperts, Contrastive]
