"""Slots: where a live request's numbers are."""

import torch

from midstep.slots import Slots


def test_a_slot_begins_empty() -> None:
    """A request that sets no number of a name reads 0 there, not what the slot's last one had set."""
    slots = Slots(torch.device("cpu"), 4)
    first = slots.acquire("a")
    slots.write(first, {("m", "p"): 0.5, ("m", "q"): 0.25})
    slots.flush()
    slots.release("a")
    second = slots.acquire("b")
    assert second == first
    slots.write(second, {("m", "q"): 0.75})
    slots.flush()
    found = [slots.read(("m", name), torch.tensor([second])).tolist() for name in ("p", "q")]
    assert found == [[0.0], [0.75]]
