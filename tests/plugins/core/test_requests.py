"""What a request may say, in each of its forms, and what it is told when it may not."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from toy import installed
from toy_methods import STOPS

import midstep
from midstep.configuration import current, read
from midstep.errors import describe


def write(folder: Path, text: str) -> Path:
    path = folder / "midstep.toml"
    path.write_text(text)
    return path


def test_a_request_is_one_string_that_parse_reads_back() -> None:
    entry = midstep.request(min_p={"p": 0.2}, trace=True)
    assert set(entry) == {"midstep"}
    asked = midstep.parse(entry)
    assert asked is not None
    assert (asked.methods, asked.trace, asked.on_error) == ({"min_p": {"p": 0.2}}, True, "stop")


def test_a_flat_truth_value_may_come_as_a_number() -> None:
    """vLLM's `vllm_xargs` has no truth values: it makes numbers of them."""
    with installed(reward_hooks=STOPS):
        for yes, no in ((True, False), (1, 0), (1.0, 0.0)):
            asked = midstep.parse({"midstep.count.force": yes, "midstep.count.limit": 1, "midstep.trace": yes})
            assert asked is not None
            assert (asked.methods["count"], asked.trace) == ({"force": True, "limit": 1}, True)
            asked = midstep.parse({"midstep.count.force": no, "midstep.trace": no})
            assert asked is not None
            assert (asked.methods["count"], asked.trace) == ({"force": False}, False)
        with pytest.raises(ValueError, match=r"count\.force = 2: input should be a valid boolean"):
            midstep.parse({"midstep.count.force": 2})
        with pytest.raises(ValueError, match=r"count\.force = 1: input should be a valid boolean"):
            midstep.parse({"midstep": '{"methods": {"count": {"force": 1}}}'})


def test_flat_keys_say_the_same_as_json() -> None:
    assert midstep.parse({"midstep.min_p.p": 0.2, "midstep.trace": True}) == midstep.parse(
        midstep.request(min_p={"p": 0.2}, trace=True)
    )


def test_midstep_may_draw_without_a_method() -> None:
    entry = midstep.request(draw=True)
    assert entry == {"midstep": '{"draw":true}'}
    asked = midstep.parse(entry)
    assert asked == midstep.parse({"midstep.draw": True})
    assert asked is not None
    admission = midstep.admit(asked, [1, 2], midstep.Sampling(), midstep.Model(10, None), seed=3)
    assert admission is not None
    assert (admission.uses, admission.trace, admission.seed) == ((), False, 3)


def test_a_request_without_an_entry_is_none_of_our_business() -> None:
    assert midstep.parse(None) is None
    assert midstep.parse({"other": "x"}) is None
    assert midstep.parse({"midstep": "{}"}) is None


def test_the_helper_refuses_what_the_server_would_refuse() -> None:
    with pytest.raises(
        ValueError, match=r"min_p\.p = 1\.5.*less than or equal to 1.*p \(float, >= 0, <= 1, default 0\.05\)"
    ):
        midstep.request(min_p={"p": 1.5})
    with pytest.raises(ValueError, match=r"min_p = .*not JSON compliant"):
        midstep.request(min_p={"p": float("nan")})
    with pytest.raises(ValueError, match=r"no method named 'min_q' is installed; installed: .*min_p"):
        midstep.request(min_q={})


def test_request_beats_preset_beats_defaults(tmp_path: Path) -> None:
    settings = read(write(tmp_path, """
        [defaults.min_p]
        p = 0.1
        [defaults.deepconf]
        threshold = 3.0
        [presets.careful]
        trace = true
        [presets.careful.min_p]
        p = 0.3
        [presets.careful.deepconf]
        window = 8
    """))  # fmt: skip
    careful = midstep.parse({"midstep": "careful"}, settings)
    assert careful is not None
    assert careful.methods == {"min_p": {"p": 0.3}, "deepconf": {"threshold": 3.0, "window": 8}}
    assert careful.trace
    assert careful.by_default == frozenset()
    own = midstep.parse({"midstep": json.dumps({"preset": "careful", "methods": {"min_p": {"p": 0.5}}})}, settings)
    assert own is not None
    assert own.methods["min_p"] == {"p": 0.5}


def test_defaults_reach_requests_that_say_nothing_and_null_turns_one_off(tmp_path: Path) -> None:
    settings = read(write(tmp_path, "[defaults.min_p]\np = 0.1\n"))
    silent = midstep.parse(None, settings)
    assert silent is not None
    assert (silent.methods, silent.by_default) == ({"min_p": {"p": 0.1}}, {"min_p"})
    assert midstep.parse({"midstep": '{"methods":{"min_p":null}}'}, settings) is None


def test_limits_name_the_limit_and_the_value(tmp_path: Path) -> None:
    settings = read(write(tmp_path, "[limits]\nmethods = 1\njson_bytes = 40\n"))
    with pytest.raises(ValueError, match=r"2 methods .* 1 \(limits\.methods\)"):
        midstep.parse({"midstep.min_p.p": 0.1, "midstep.deepconf.threshold": 1.0}, settings)
    with pytest.raises(ValueError, match=r"has \d+ bytes; allowed on this server: 40 \(limits\.json_bytes\)"):
        midstep.parse({"midstep": json.dumps({"methods": {"min_p": {"p": 0.1}}, "order": ["min_p"]})}, settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[defaults.min_p]\np = 2.0\n", "defaults: midstep: min_p.p = 2.0"),
        ("[presets.x.min_q]\n", "presets|x: no method named 'min_q'"),
        ("[limits]\nmethods = -1\n", "limits.methods = -1"),
        ("[limit]\n", "limit = {}"),
        ("defaults = 3\n", "defaults = 3"),
        ("= 3", "is not TOML"),
        ('allow = ["min_q"]\n', "allow: no method named 'min_q'"),
    ],
)
def test_a_wrong_configuration_says_where(tmp_path: Path, text: str, says: str) -> None:
    current.cache_clear()
    with pytest.raises(ValueError, match=says):
        current(str(write(tmp_path, text)))


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml does not exist; name an existing file in MIDSTEP_CONFIG"):
        read(tmp_path / "nowhere.toml")


def test_the_environment_names_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTEP_CONFIG", str(write(tmp_path, "[limits]\nn = 3\n")))
    current.cache_clear()
    assert current().limits.n == 3
    current.cache_clear()


def test_prepare_may_refuse_and_a_default_is_skipped_instead() -> None:
    from toy import installed

    class Picky(midstep.LogitsProcessor):
        """Refuses everything."""

        name = "picky"

        @classmethod
        def prepare(cls, params, prompt, model):  # type: ignore[no-untyped-def]
            raise ValueError("the prompt has no image; send one, or leave picky out")

        def apply(self, logits, rows):  # type: ignore[no-untyped-def]
            return logits

    model = midstep.Model(vocabulary=10)
    with installed(logits_processors=[Picky]):
        asked = midstep.parse(midstep.request(picky={}))
        assert asked is not None
        with pytest.raises(ValueError, match="midstep: picky: the prompt has no image"):
            midstep.admit(asked, [1], midstep.Sampling(), model)
        settings = midstep.Configuration.model_validate({"defaults": {"methods": {"picky": {}, "min_p": {}}}})
        silent = midstep.parse(None, settings)
        assert silent is not None
        found = midstep.admit(silent, [1], midstep.Sampling(), model)
        assert found is not None
        assert [use.name for use in found.uses] == ["min_p"]


def test_an_admission_survives_the_wire_and_stamps_its_samples() -> None:
    asked = midstep.parse(midstep.request(deepconf={"threshold": 2.0}, min_p={}))
    assert asked is not None
    found = midstep.admit(
        asked, [1, 2], midstep.Sampling(top_k=5), midstep.Model(vocabulary=10, ends=(2,)), seed=2**64 - 2
    )
    assert found is not None
    stamped = found.stamped("r", 1)
    assert midstep.Admission.unwire(json.loads(json.dumps(stamped.wire())), [1, 2]) == stamped
    assert [found.stamped("r", i).seed for i in range(3)] == [-2, -1, 0]
    assert len({found.__class__(found.uses, found.sampling).stamped("r", 0).seed for _ in range(4)}) == 4
    assert [use.name for use in found.uses] == ["deepconf", "min_p"]


def test_a_parameters_type_is_said_in_words() -> None:
    """What a refusal and a README's table say."""

    class Params(midstep.Params):
        most: int | None = Field(None, ge=0)
        kind: Literal["auto", "now"] = "auto"
        texts: list[Annotated[str, Field(min_length=1)]] = Field(["a"], max_length=2)

    assert [describe(name, field) for name, field in Params.model_fields.items()] == [
        "most (int or None, >= 0, default None)",
        "kind ('auto' or 'now', default 'auto')",
        "texts (list of str, default ['a'])",
    ]


ONLY_MIN_P = 'allow = ["min_p"]\n[defaults.min_p]\np = 0.1\n[defaults.deepconf]\nthreshold = 3.0\n'


def test_only_allowed_methods_may_be_named_and_the_other_defaults_are_left_out(tmp_path: Path) -> None:
    settings = read(write(tmp_path, ONLY_MIN_P + "[presets.sure.deepconf]\nwindow = 4\n"))
    silent = midstep.parse(None, settings)
    assert silent is not None
    assert silent.methods == {"min_p": {"p": 0.1}}
    own = midstep.parse(midstep.request(min_p={"p": 0.2}), settings)
    assert own is not None
    assert own.methods == {"min_p": {"p": 0.2}}
    says = r"deepconf is not allowed on this server; allowed: min_p\. Leave it out, or have it added to `allow`"
    with pytest.raises(ValueError, match=says):
        midstep.parse(midstep.request(deepconf={"threshold": 1.0}), settings)
    with pytest.raises(ValueError, match=says):
        midstep.parse({"midstep": "sure"}, settings)
    off = midstep.parse({"midstep": '{"methods":{"deepconf":null}}'}, settings)
    assert off is not None
    assert set(off.methods) == {"min_p"}


def test_an_allowed_method_is_allowed_under_its_distributions_name_too(tmp_path: Path) -> None:
    settings = read(write(tmp_path, 'allow = ["min_p"]\n'))
    asked = midstep.parse({"midstep": '{"methods":{"midstep-min-p:min_p":{"p":0.2}}}'}, settings)
    assert asked is not None
    assert list(asked.methods) == ["midstep-min-p:min_p"]
    nothing = read(write(tmp_path, "allow = []\n"))
    with pytest.raises(ValueError, match="min_p is not allowed on this server; allowed: none"):
        midstep.parse(midstep.request(min_p={}), nothing)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "longest"), [(30, 71, "101 tokens"), (101, 1, "102 tokens"), (1, None, "1024 tokens")]
)
def test_a_method_may_not_look_back_further_than_the_limit(prompt: int, max_tokens: int | None, longest: str) -> None:
    model = midstep.Model(vocabulary=10, max_length=1024)
    limits = midstep.Configuration.model_validate({"limits": {"history": 100}}).limits

    def admit(length: int, most: int | None, **methods: dict[str, Any]) -> midstep.Admission | None:
        asked = midstep.parse(midstep.request(**methods))
        assert asked is not None
        return midstep.admit(asked, [1] * length, midstep.Sampling(), model, max_tokens=most, limits=limits)

    with pytest.raises(ValueError, match=rf"dry: its history would be {longest} .* 100 \(limits\.history\); send a"):
        admit(prompt, max_tokens, dry={"breakers": []})
    assert admit(prompt, max_tokens, min_p={}) is not None
    assert admit(30, 70, dry={"breakers": []}) is not None
