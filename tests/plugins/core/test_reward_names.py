"""Rewards by name: with parameters in Python, and as a server configures them."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from toy import installed

import midstep
from midstep.configuration import Configuration, current
from midstep.searching import served
from midstep.testing.scripted import ScriptedEngine


class Fixed(midstep.Reward):
    """Scores every step alike, and says when it was closed."""

    name = "fixed"
    closed: ClassVar[list[float]] = []

    class Params(midstep.Params):
        """What it says."""

        says: float = 0.5

    async def score(self, prompt: str, steps: Sequence[str]) -> list[float]:
        return [self.params.says] * len(steps)

    async def close(self) -> None:
        self.closed.append(self.params.says)


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    Fixed.closed.clear()
    with installed(reward_hooks=[Fixed]):
        yield
    current.cache_clear()


def search(reward: object) -> midstep.Result:
    return asyncio.run(midstep.search(ScriptedEngine(), "How many?", best_of_n={"n": 2}, reward=reward))


def test_a_reward_by_name_is_made_and_closed() -> None:
    assert search("fixed").weights == (0.5, 0.5)
    assert search({"fixed": {"says": 0.25}}).weights == (0.25, 0.25)
    assert Fixed.closed == [0.5, 0.25]


def test_a_reward_in_hand_is_left_open() -> None:
    result = search(Fixed(Fixed.Params(says=0.75)))
    assert (result.weights, result.trace["reward"], Fixed.closed) == ((0.75, 0.75), "fixed", [])


def test_progress_tells_each_node_as_it_changes() -> None:
    told: list[tuple[str, str]] = []
    asked = {"best_of_n": {"n": 2}, "reward": "fixed", "progress": lambda name, node: told.append((name, node["fate"]))}
    trace = asyncio.run(midstep.search(ScriptedEngine(), "How many?", **asked)).trace
    assert dict(told) == {name: node["fate"] for name, node in trace["nodes"].items()}


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("fixd", "no method named 'fixd' is installed"),
        ({"fixed": {"says": "much"}}, "fixed.says = 'much'.*parameters of fixed: says"),
        ({"fixed": {}, "min_p": {}}, "2 names for a reward"),
    ],
)
def test_what_is_no_reward_is_refused(reward: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        search(reward)


def configuration(folder: Path, text: str) -> Configuration:
    (folder / "midstep.toml").write_text(text)
    return current(str(folder / "midstep.toml"))


def test_a_server_names_its_rewards(tmp_path: Path) -> None:
    ours = configuration(tmp_path, "[rewards.mine]\nuse = 'fixed'\nsays = 0.125\npatience = {timeout = 2.0}\n")
    reward, patience = served("mine", ours)
    assert (asyncio.run(reward.score("?", ["a", "b"])), patience.timeout) == ([0.125, 0.125], 2.0)
    assert served("fixed", ours)[0].params.says == 0.5
    with pytest.raises(ValueError, match=r"'other'.*this server's own rewards: mine; installed: .*fixed"):
        served("other", ours)


def test_allow_binds_installed_rewards_but_not_the_servers_own(tmp_path: Path) -> None:
    ours = configuration(tmp_path, "allow = ['min_p']\n[rewards.mine]\nuse = 'fixed'\n")
    assert served("mine", ours)[0].params.says == 0.5
    with pytest.raises(ValueError, match="reward 'fixed' is not allowed on this server; its own: mine"):
        served("fixed", ours)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rewards.mine]\nuse = 'nothing'\n", "rewards.mine: no method named 'nothing'"),
        ("[rewards.mine]\nuse = 'fixed'\nsay = 1\n", "rewards.mine: fixed.say = 1"),
        ("[rewards.mine]\nuse = 'fixed'\npatience = {tries = 0}\n", "rewards.mine: patience.tries = 0"),
        ("[rewards.mine]\nsays = 1\n", "rewards.mine.use"),
        ("rewards = 3\n", "rewards"),
    ],
)
def test_a_bad_reward_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        configuration(tmp_path, text)
