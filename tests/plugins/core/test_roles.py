"""Companions by what they wear: who is made, and who would be the request's own row."""

from itertools import product

import pytest

from midstep import Companion, Model
from midstep.roles import ITSELF, cast, role

OWN = (3, 4, 5)
LOADED = ("math", "art")


def model(adapter: str | None = None) -> Model:
    return Model(vocabulary=9, adapter=adapter, adapters=LOADED)


def test_a_prompt_is_the_requests_own_where_none_is_given() -> None:
    assert role("base", None, OWN, model()) == Companion(OWN, "base")
    assert role("lora:math", [7, 8], OWN, model()) == Companion((7, 8), "lora:math")
    with pytest.raises(ValueError, match="needs a tokenizer, and this server has none"):
        role("base", "text", OWN, model())
    with pytest.raises(ValueError, match="empty prompt"):
        role("base", [], OWN, model())


@pytest.mark.parametrize("adapter", [None, "math"])
def test_who_would_be_the_requests_own_row_is_not_made(adapter: str | None) -> None:
    """That is: wears what it wears, whatever it is called, under its prompt."""
    really = {"own": adapter, "base": None, "lora:math": "math", "lora:art": "art"}
    for wears, prompt in product(really, (OWN, (3, 4))):
        made = cast({"one": Companion(prompt, wears)}, OWN, model(adapter))
        same = really[wears] == adapter and prompt == OWN
        assert made == ({} if same else {"one": Companion(prompt, wears)})


def test_two_that_would_be_one_row_are_refused() -> None:
    says = "one and other would be one row: both wear the adapter 'math'.*loaded: 'art', 'math'.*another prompt"
    with pytest.raises(ValueError, match=says):
        cast({"one": Companion((1,), "own"), "other": Companion((1,), "lora:math")}, OWN, model("math"))
    itself = Companion(OWN)
    with pytest.raises(ValueError, match="the request itself and other would be one row: both wear no adapter"):
        cast({ITSELF: itself, "other": Companion(OWN, "base")}, OWN, model())
    assert set(cast({ITSELF: itself, "other": Companion(OWN, "base")}, OWN, model("art"))) == {"other"}
