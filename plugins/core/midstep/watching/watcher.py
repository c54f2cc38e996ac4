"""Watches requests from the engine's core: finds their steps, has them judged, and says which request has to end.

Nothing here waits: a step is handed to another process, and its verdict is read when it has come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence, Set
from typing import Any

from ..configuration import Configuration
from ..errors import shown
from ..searching.aggregate import aggregate
from .one import One
from .process import Judge
from .samples import Samples
from .steps import Finder, Reading
from .watched import News, Verdict, Watched

logger = logging.getLogger("midstep")

GROUPS = 4096


class Watcher:
    """What one engine's core watches.

    Args:
        configuration: the server's.
        tokenizer: loads the model's tokenizer, in a thread.
    """

    def __init__(self, configuration: Configuration, tokenizer: Callable[[], Any]) -> None:
        self._configuration = configuration
        self._tokenizer: Any = None
        self._ones: dict[str, One] = {}
        self._samples: dict[str, Samples[One]] = {}
        self._readings: dict[tuple[str, ...], Reading] = {}
        self._judges: dict[str, Judge] = {}
        threading.Thread(target=self._load, args=(tokenizer,), name="midstep-tokenizer", daemon=True).start()
        for name in configuration.rewards:
            self._judge(name).begin()

    def __bool__(self) -> bool:
        return bool(self._ones)

    def __contains__(self, key: str) -> bool:
        return key in self._ones

    def keys(self) -> Set[str]:
        """Return the keys of the requests that are watched."""
        return self._ones.keys()

    def begin(self, key: str, watched: Watched) -> None:
        """Watch a request that the engine has taken."""
        asked = watched.asked
        one = self._ones[key] = One(key, watched, asked, watched.sample)
        self._judge(asked.reward).begin()
        if asked.do == "weakest":
            self._samples.setdefault(watched.group, Samples(watched.n, asked.keep, asked.below)).join(one)
            while len(self._samples) > GROUPS:  # of those whose other samples never came
                del self._samples[next(iter(self._samples))]

    def see(self, key: str, ids: Sequence[int]) -> None:
        """Take a request's next tokens; a step that ends among them is handed on."""
        one = self._ones[key]
        if one.finder is None:
            one.unread += ids
            if self._tokenizer is None:
                return
            until = one.asked.separators
            reading = self._readings.get(until)
            if reading is None:
                reading = self._readings[until] = Reading(self._tokenizer, until)
            one.finder = Finder(reading, lambda text, end: self._step(one, text, end))
            ids, one.unread = one.unread, []
        one.finder.see(ids)

    def poll(self) -> None:
        """Take the verdicts that have come."""
        for judge in self._judges.values():
            while judge.told:
                told = judge.told.popleft()
                try:
                    self._take(judge.name, told)
                except Exception:  # the engine's loop must not end because of what a process says
                    logger.exception("midstep: what the reward %s says is no verdict: %s", judge.name, shown(told))

    def ended(self, key: str) -> News | None:
        """Return the step because of which a request has to end, None where it goes on."""
        one = self._ones.get(key)
        return None if one is None else one.ended

    def applied(self, key: str) -> None:
        """Note that a request was ended because of its step, and not by anything else before."""
        one = self._ones[key]
        if one.ended is not None:
            one.note(one.ended.number, ended=True)

    def news(self, key: str) -> list[News]:
        """Return what is new of a request's steps since the last call."""
        one = self._ones[key]
        changed, one.changed = sorted(one.changed), set()
        return [one.steps[number] for number in changed]

    def end(self, key: str) -> None:
        """Forget a request that has ended, whoever ended it."""
        one = self._ones.pop(key, None)
        if one is None:
            return
        one.live = False
        self._judge(one.asked.reward).forget(key)
        samples = self._samples.get(one.watched.group)
        if samples is not None and samples.over():
            del self._samples[one.watched.group]
        elif samples is not None:
            self._compare(one.watched.group)

    def close(self) -> None:
        """End the judges' processes."""
        for judge in self._judges.values():
            judge.close()

    def _load(self, tokenizer: Callable[[], Any]) -> None:
        try:
            self._tokenizer = tokenizer()
        except Exception:
            logger.exception("midstep: the tokenizer could not be loaded; no step is found, and none judged")

    def _judge(self, name: str) -> Judge:
        if name not in self._judges:
            self._judges[name] = Judge(name, self._configuration)
        return self._judges[name]

    def _step(self, one: One, text: str, end: int) -> None:
        """Hand on a step that has just ended."""
        number = len(one.steps)
        one.steps.append(News(number, end))
        one.texts.append(text)
        one.times.append(time.monotonic())
        one.changed.add(number)
        judge = self._judge(one.asked.reward)
        process, known = one.sent
        known = known if process == judge.process else 0
        message: dict[str, Any] = {"key": one.key, "steps": one.texts[known:], "end": end}
        if not known:
            message |= {
                "group": one.watched.group,
                "question": one.watched.question,
                "prompt": one.watched.prompt,
                "until": one.asked.separators,
            }
        fault = judge.ask(message)
        if fault is None:
            one.sent = judge.process, len(one.texts)
        else:
            one.note(number, verdict="gone", seconds=0.0, fault=fault)
            self._compare(one.watched.group)

    def _take(self, name: str, told: dict[str, Any]) -> None:
        """Take one message of a judge."""
        if "died" in told:
            for one in list(self._ones.values()):
                if one.asked.reward == name and one.sent[0] == told["died"]:
                    self._gone(one, len(one.steps), told["fault"])
            return
        asker = self._ones.get(told["key"])
        if asker is None or asker.sent[0] != told["process"]:
            return
        if "tokens" in told:
            number = told["step"]
            asker.note(number, tokens=asker.steps[number].tokens + told["tokens"])
        elif "fault" in told:
            self._gone(asker, told["count"] or len(asker.steps), told["fault"])
        else:
            self._scored(asker, told["scores"])

    def _gone(self, one: One, count: int, fault: str) -> None:
        now = time.monotonic()
        for step in one.steps[:count]:
            if step.verdict is None:
                one.note(step.number, verdict="gone", seconds=now - one.times[step.number], fault=fault)
        self._compare(one.watched.group)

    def _scored(self, one: One, scores: Sequence[float]) -> None:
        asked, now = one.asked, time.monotonic()
        for number, score in enumerate(scores):
            if one.steps[number].verdict is not None:
                continue
            known: dict[str, Any] = {"score": score, "verdict": "go on", "seconds": now - one.times[number]}
            try:
                known["value"] = aggregate(scores[: number + 1], asked.how)
            except ValueError as error:  # a score below 0, of which no product is made
                known = {"verdict": "gone", "seconds": known["seconds"], "fault": str(error)}
            one.note(number, **known)
            value = one.steps[number].value
            if asked.do == "stop" and value is not None and asked.below is not None and value < asked.below:
                self._end(one, number, "stop")
        self._compare(one.watched.group)

    def _compare(self, group: str) -> None:
        """End the samples of a request that are the weakest now."""
        samples = self._samples.get(group)
        while samples is not None and (found := samples.weakest()) is not None:
            self._end(*found, "weakest")

    def _end(self, one: One, number: int, verdict: Verdict) -> None:
        one.live = False
        one.note(number, verdict=verdict)
        one.ended = one.ended or one.steps[number]  # the first; later steps that are too weak as well say so
