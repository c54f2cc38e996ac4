"""A toy engine under random schedules: whatever it does with its rows, no request's tokens change."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import VOCABULARY, admission, installed
from toy_methods import PROCESSORS, SAMPLERS, STOPS

import midstep

LENGTH = 9
CHOICES = (
    {"min_p": {"p": 0.2}},
    {"count": {"limit": 6, "start": 1}},
    {"count": {"limit": 3, "force": True}, "lift": {"token": 5, "by": 2.0}},
    {"deepconf": {"threshold": 3.3, "window": 3, "k": 4}, "min_p": {"p": 0.05}},
    {"last": {}, "double": {}},
    {"second": {}, "banned": {"ids": [1, 2, 3]}},
)
SAMPLINGS = (
    midstep.Sampling(temperature=0.0),
    midstep.Sampling(temperature=1.1),
    midstep.Sampling(temperature=0.9, top_k=9, top_p=0.9, repetition_penalty=1.3, presence_penalty=0.2),
)


def model(ids: tuple[int, ...]) -> torch.Tensor:
    """Stand for a network: logits [V] that are a function of all ids so far."""
    seed = hash(ids) & 0xFFFFFFFF
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2.5


@dataclass
class Live:
    """A request in the toy engine: `fed` ids are in the cache, the rest must be computed first."""

    admission: midstep.Admission
    ids: list[int] = field(default_factory=list)
    fed: int = 0
    slot: int = -1

    def whole(self) -> tuple[int, ...]:
        return (*self.admission.prompt, *self.ids)


def ask(kind: int) -> midstep.Admission:
    methods, sampling = CHOICES[kind % len(CHOICES)], SAMPLINGS[kind // len(CHOICES) % len(SAMPLINGS)]
    return admission(f"r{kind}", sampling, seed=kind, prompt=range(3, 6 + kind % 4), **methods)


@cache
def alone(kind: int) -> tuple[int, ...]:
    """Return what the request answers with nobody beside it."""
    pipeline, live = midstep.Pipeline("cpu", max_length=32), Live(ask(kind))
    while len(live.ids) < LENGTH:
        logits = model(live.whole())[None]
        record = pipeline.run(logits, [live.admission], [0], torch.tensor([len(live.ids)]))
        live.ids.append(int(logits[0].argmax()))
        if any(event.end for event in record.events()):
            break
    return tuple(live.ids)


class Engine:
    """Runs requests as engines do: rows in any order, chunks, preemption, dropped tokens, aborts."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.pipeline = midstep.Pipeline("cpu", limit=64, max_length=32)
        self.live: dict[int, Live] = {}
        self.done: dict[int, tuple[int, ...]] = {}

    def step(self) -> None:
        """Schedule some of the live requests, in any order, among rows that are not ours."""
        chosen = [k for k in self.data.draw(st.permutations(sorted(self.live))) if self.data.draw(st.booleans())]
        gaps = [self.data.draw(st.integers(0, 2)) for _ in chosen]
        rows, row = [], 0
        for gap in gaps:
            rows.append(row + gap)
            row += gap + 1
        logits = torch.full((row + 1, VOCABULARY), 0.5)
        position, partial = [], []
        for k, at in zip(chosen, rows, strict=True):
            live = self.live[k]
            left = len(live.whole()) - live.fed
            chunk = self.data.draw(st.integers(1, left))
            live.fed += chunk
            partial.append(live.fed < len(live.whole()))
            logits[at] = model(live.whole()[: live.fed])
            # an engine that knows says so; V1 cannot, and repeats the position instead
            position.append(-1 if partial[-1] and k % 2 else len(live.ids))
        if not chosen:
            return
        others = logits.clone()
        record = self.pipeline.run(logits, [self.live[k].admission for k in chosen], rows, torch.tensor(position))
        mine = torch.zeros(len(logits), dtype=torch.bool)
        mine[rows] = True
        assert torch.equal(logits[~mine], others[~mine])
        ends = {event.key for event in record.events() if event.end}
        for k, at, thrown_away in zip(chosen, rows, partial, strict=True):
            if not thrown_away:
                self.keep(k, int(logits[at].argmax()), f"r{k}" in ends)

    def keep(self, k: int, token: int, ends: bool) -> None:
        live = self.live[k]
        if self.data.draw(st.integers(0, 9)) == 0:  # the token in flight is dropped, and drawn again later
            live.fed = len(live.whole()) - 1
            return
        live.ids.append(token)
        if ends or len(live.ids) == LENGTH:
            self.finish(k)

    def finish(self, k: int) -> None:
        live = self.live.pop(k)
        self.done[k] = tuple(live.ids)
        self.pipeline.release([live.admission.key])

    def preempt(self) -> None:
        """Take everything that one request has computed; it comes back and computes it again, in chunks."""
        if self.live:
            self.live[self.data.draw(st.sampled_from(sorted(self.live)))].fed = 0

    def abort(self) -> None:
        if self.live:
            live = self.live.pop(self.data.draw(st.sampled_from(sorted(self.live))))
            self.pipeline.release([live.admission.key])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_no_schedule_changes_a_requests_tokens(data: st.DataObject) -> None:
    """Arrivals, departures, swaps, slot reuse, preemptions, partial chunks, dropped tokens."""
    with installed(logits_processors=PROCESSORS, samplers=SAMPLERS, reward_hooks=STOPS):
        engine = Engine(data)
        waiting = data.draw(st.lists(st.integers(0, 17), min_size=1, max_size=7, unique=True))
        for _ in range(400):
            if not waiting and not engine.live:
                break
            if waiting and data.draw(st.booleans()):
                k = waiting.pop()
                engine.live[k] = Live(ask(k))
            what = data.draw(st.integers(0, 19))
            if what == 0:
                engine.preempt()
            elif what == 1:
                engine.abort()
            else:
                engine.step()
        for k, ids in engine.done.items():
            assert ids == alone(k), f"request {k} answered {ids}; alone it answers {alone(k)}"
        assert len(engine.pipeline.slots) == len(engine.live)
