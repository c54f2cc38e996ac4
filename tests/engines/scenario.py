"""The requests that every engine answers, and the answers that midstep-eager gives to them.

A case is neutral; `vllm_params`, `sglang_params` and `http_body` say it in each engine's words. Everything is greedy or
seeded and in float32, so the expected ids are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

import midstep
import midstep_eager

ROOT = Path(__file__).parents[2]
LIST = "Numbers: one, two, three, four"
STORY = "Once upon a time there was a little"
CODE = "def add(a, b):\n    return a"
LONG = " ".join(f"Line {i} says that {i} and {i + 1} follow each other." for i in range(12))


@dataclass(frozen=True)
class Case:
    """One request.

    Args:
        methods: what it asks of midstep; None for a plain request.
        sampling: midstep.Sampling's fields, as its client would set them in the engine's own words.
        extra: midstep's other settings (`trace`, `on_error`, `order`).
        flat: the methods are sent as flat keys.
    """

    name: str
    prompt: str
    methods: Mapping[str, Mapping[str, Any]] | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int = 16
    seed: int | None = None
    n: int = 1
    chat: bool = False
    stream: bool = False
    stop: tuple[str, ...] = ()
    bias: Mapping[int, float] = field(default_factory=dict)
    regex: str | None = None
    ignore_eos: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False

    def entry(self) -> dict[str, Any]:
        """Return midstep's entry among the engine's extra arguments."""
        if self.methods is None:
            return {}
        if self.flat:
            return {f"midstep.{m}.{p}": v for m, params in self.methods.items() for p, v in params.items()}
        return dict(midstep.request(**self.extra, **self.methods))


def _case(name: str, prompt: str, methods: Mapping[str, Any] | None, **more: Any) -> Case:
    own = {k: more.pop(k) for k in list(more) if k in midstep.Sampling.__dataclass_fields__}
    return Case(name, prompt, methods, {"temperature": 0.0, **own}, **more)


MIN_P = {"min_p": {"p": 0.1}}
SURE = {"deepconf": {"threshold": 2.5, "window": 5, "k": 5}}  # ends an answer in its first unsure stretch
HOT = {"temperature": 1.2}

TAGS = {"start": "<think>", "end": "</think>", "thinking": "now"}
COMMA = {"start": "(", "end": ",", "thinking": "now", "wait": " wait"}
CHAIN = {
    "xtc": {"threshold": 0.1, "probability": 0.5},
    "typical": {"mass": 0.9},
    "top_nsigma": {"n": 2.0},
    "min_p": {"p": 0.02},
    "epsilon": {"cutoff": 0.002},
}

AWAY = {"cfg": {"scale": 2.0, "negative": LIST}}
MESSAGES = [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Name three colours."}]

CASES: tuple[Case, ...] = (
    _case("plain greedy", LIST, None),
    _case("plain greedy, penalised", STORY, None, repetition_penalty=1.3),
    _case("min_p greedy", LIST, MIN_P),
    _case("min_p sampled", STORY, MIN_P, temperature=0.8, seed=1),
    _case("min_p hot", STORY, {"min_p": {"p": 0.3}}, temperature=2.0, seed=2),
    _case("min_p of nothing", CODE, {"min_p": {"p": 0.0}}, temperature=0.7, seed=3),
    _case("min_p with repetition penalty", LIST, MIN_P, **HOT, seed=4, repetition_penalty=1.3),
    _case("min_p with OpenAI's penalties", LIST, MIN_P, **HOT, seed=5, frequency_penalty=0.6, presence_penalty=0.4),
    _case("min_p with top-k", STORY, MIN_P, **HOT, seed=6, top_k=7),
    _case("min_p with top-p", STORY, MIN_P, **HOT, seed=7, top_p=0.8),
    _case("min_p with every cut", CODE, MIN_P, **HOT, seed=8, top_k=20, top_p=0.95, min_p=0.02),
    _case("min_p with a logit bias", LIST, MIN_P, **HOT, seed=9, bias={198: 4.0, 30: -100.0}),
    _case("min_p in a grammar", LIST, MIN_P, **HOT, seed=10, regex=r"[a-z ]{8,30}\.", ignore_eos=False),
    _case("min_p to a stop string", CODE, MIN_P, **HOT, seed=11, stop=("#", "\n"), max_tokens=24),
    _case("min_p twice", STORY, MIN_P, **HOT, seed=12, n=2),
    _case("min_p streamed", STORY, MIN_P, **HOT, seed=13, stream=True),
    _case("min_p twice, streamed", LIST, MIN_P, **HOT, seed=14, n=2, stream=True),
    _case("min_p in a chat", "Name three colours.", MIN_P, **HOT, seed=15, chat=True),
    _case("min_p in a streamed chat", "Name three colours.", MIN_P, **HOT, seed=16, chat=True, stream=True),
    _case("min_p by flat keys", STORY, MIN_P, **HOT, seed=17, flat=True),
    _case("min_p traced", STORY, MIN_P, **HOT, seed=18, extra={"trace": True}),
    _case("min_p after a long prompt", LONG, MIN_P, **HOT, seed=19),
    _case("min_p greedy, penalised", STORY, MIN_P, repetition_penalty=1.2, frequency_penalty=0.3),
    _case("deepconf greedy", LIST, SURE, max_tokens=24),
    _case("deepconf sampled", LIST, SURE, **HOT, seed=20, max_tokens=24),
    _case("deepconf never", CODE, {"deepconf": {"threshold": 0.0, "window": 4}}, max_tokens=10),
    _case("deepconf with min_tokens", STORY, SURE, min_tokens=14, max_tokens=24),
    _case("deepconf in a grammar", LIST, SURE, regex=r"[a-z ]{20,40}\.", max_tokens=24, ignore_eos=False),
    _case("deepconf and a stop string", STORY, SURE, stop=(" world",), max_tokens=24),
    _case("deepconf and a stop string in one token", LIST, SURE, **HOT, seed=20, stop=(" even",), max_tokens=24),
    _case("deepconf at the last token", LIST, SURE, **HOT, seed=20, max_tokens=10),
    _case(
        "deepconf four times", STORY, {"deepconf": {"threshold": 3.75, "window": 3}}, **HOT, seed=21, n=4, max_tokens=12
    ),
    _case("deepconf in a streamed chat", "Tell me a story.", SURE, chat=True, stream=True, max_tokens=24),
    _case("state and history", STORY, {"bracket": {}}, **HOT, seed=25, max_tokens=24),
    _case("state and history, greedy", LONG, {"bracket": {}}, max_tokens=24),
    _case("a forced sequence", LIST, {"force": {"at": 3, "ids": [84, 85, 86, 87]}}, max_tokens=12),
    _case(
        "everything at once",
        STORY,
        {"bracket": {}, "force": {"at": 6}, **SURE, **MIN_P},
        **HOT,
        seed=26,
        repetition_penalty=1.1,
        top_p=0.95,
        max_tokens=24,
    ),
    _case("both methods", STORY, {**SURE, **MIN_P}, **HOT, seed=22, max_tokens=24),
    _case(
        "both methods, every cut", LIST, {**SURE, **MIN_P}, **HOT, seed=23, top_k=50, top_p=0.9, presence_penalty=0.5
    ),
    _case(
        "both methods, wide window",
        LONG,
        {"deepconf": {"threshold": 5.5, "window": 9, "k": 5}, **MIN_P},
        **HOT,
        seed=24,
    ),
    # Every further method once and more, in the ways that differ: state, history, chance, sequences, greedy rows.
    _case("top_nsigma", STORY, {"top_nsigma": {"n": 1.5}}, temperature=2.0, seed=30, max_tokens=12),
    _case("p_less", STORY, {"p_less": {}}, **HOT, seed=31, max_tokens=12),
    _case("p_less, norm", CODE, {"p_less": {"norm": True}}, temperature=2.0, seed=32, max_tokens=12),
    _case("p_less by flat keys", STORY, {"p_less": {"norm": True}}, **HOT, seed=46, flat=True, max_tokens=8),
    _case("epsilon and eta", STORY, {"epsilon": {"cutoff": 0.02}, "eta": {"cutoff": 0.3}}, **HOT, seed=33),
    _case("typical", LIST, {"typical": {"mass": 0.4}}, **HOT, seed=34, max_tokens=12),
    _case("typical greedy", STORY, {"typical": {"mass": 0.2}}, max_tokens=12),
    _case("xtc", STORY, {"xtc": {"threshold": 0.05, "probability": 0.7}}, **HOT, seed=48, n=2, max_tokens=12),
    _case("xtc greedy", LIST, {"xtc": {"threshold": 0.02, "keep_special": True}}, seed=36, max_tokens=12),
    _case("mirostat", STORY, {"mirostat": {"tau": 2.0, "eta": 0.5}}, **HOT, seed=37, n=2, max_tokens=16),
    _case("mirostat, the model's surprise", LIST, {"mirostat": {"tau": 2.5, "surprise": "model"}}, **HOT, seed=38),
    _case("dynamic_temperature", STORY, {"dynamic_temperature": {"low": 0.2, "high": 2.0}}, temperature=1.0, seed=39),
    _case("edt", CODE, {"edt": {"t0": 0.9, "theta": 1.5}}, temperature=1.0, seed=40, max_tokens=12),
    _case("quadratic", LIST, {"quadratic": {"factor": 0.3, "curve": 1.5}}, **HOT, seed=41, max_tokens=12),
    _case("dry greedy", LIST, {"dry": {"allowed_length": 1}}, max_tokens=24),
    _case("dry after a long prompt", LONG, {"dry": {"multiplier": 2.0, "breakers": []}}, **HOT, seed=42, max_tokens=12),
    _case("repetition", LIST, {"repetition": {"times": 3, "period": 6, "least": 9}}, max_tokens=24),
    _case("a thought's maximum", STORY, {"thinking_budget": {**TAGS, "maximum": 4, "answer": " So:"}}, max_tokens=24),
    _case("a thought that waits", LIST, {"thinking_budget": {**COMMA, "waits": 2}}, max_tokens=16),
    _case("a chain of keep rules", STORY, CHAIN, temperature=1.5, seed=43, top_p=0.98, max_tokens=12),
    _case(
        "a chain in its own order", LIST, CHAIN, temperature=1.5, seed=44, max_tokens=12, extra={"order": list(CHAIN)}
    ),
    # Guided; `guided.CASES` has more.
    _case("cfg twice", STORY, AWAY, **HOT, seed=50, n=2, top_p=0.9, max_tokens=12),
    _case("cfg in a grammar", STORY, AWAY, **HOT, seed=52, regex=r"[a-z ]{8,30}\.", ignore_eos=False),
    _case(
        "cfg in a streamed chat",
        "Name three colours.",
        {"cfg": {"scale": 1.7, "negative": MESSAGES}},
        **HOT,
        seed=54,
        chat=True,
        stream=True,
        max_tokens=12,
    ),
    _case(
        "all kinds at once",
        LONG,
        {"dry": {}, "dynamic_temperature": {}, "quadratic": {}, "typical": {}, "xtc": {}, "mirostat": {}, **SURE},
        temperature=1.0,
        seed=45,
        n=2,
        max_tokens=16,
    ),
)

REAL_CASES: tuple[Case, ...] = (
    _case("plain", "The capital of France is", None, max_tokens=12),
    _case("min_p", "The capital of France is", MIN_P, temperature=0.9, seed=1, max_tokens=24),
    _case("deepconf", "List three fruits:", {"deepconf": {"threshold": 4.9, "window": 6}}, max_tokens=32),
    _case(
        "both in a chat",
        "Why is the sky blue?",
        {**MIN_P, "deepconf": {"threshold": 4.9, "window": 8}},
        temperature=0.8,
        seed=2,
        chat=True,
        max_tokens=32,
    ),
    _case(
        "a thought in a chat",
        "What is two and two?",
        {"thinking_budget": {**TAGS, "maximum": 8, "answer": "\n\nFinal Answer:"}},
        chat=True,
        max_tokens=28,
    ),
    _case("twice", "Once upon a time", MIN_P, temperature=1.0, seed=3, n=2, top_p=0.9, max_tokens=20),
    # Guided, of 40 tokens each, beside the others.
    _case(
        "cfg in a chat",
        "Name three colours.",
        {"cfg": {"scale": 1.5, "negative": MESSAGES}},
        chat=True,
        max_tokens=40,
    ),
    _case(
        "cad",
        "The sea of this planet is orange.\nWhat colour is the sea of this planet? It is",
        {"cad": {"without": "The sea of this planet is orange.\n", "alpha": 1.0}},
        max_tokens=40,
    ),
    _case(
        "m3id, sampled",
        "The hero is called Zorb.\nTell me about the hero.",
        {"m3id": {"without": "The hero is called Zorb.\n", "decay": 0.1, "threshold": 0.9}},
        temperature=0.8,
        seed=4,
        max_tokens=40,
    ),
)


@dataclass(frozen=True)
class Expected:
    """One sample's answer: token ids, text, why it ended, midstep's word on its stop, and who changed tokens."""

    ids: tuple[int, ...]
    text: str
    finish_reason: str
    stop_reason: str | None
    stop: Mapping[str, Any] | None
    changed: Mapping[str, int]


def expected(model: str, cases: Sequence[Case] = CASES) -> Mapping[str, list[Expected]]:
    """Return midstep-eager's answers to `cases` by name; each is worked out when it is asked for, and kept."""
    from engines.kept import Answers  # which asks this module

    return Answers(model, cases)


def answer(model: str, case: Case) -> list[Expected]:
    """Answer one case with midstep-eager."""
    network, tokenizer = load(model)
    options = midstep_eager.Options(
        max_tokens=case.max_tokens,
        n=case.n,
        seed=case.seed,
        stop=case.stop,
        ignore_eos=case.ignore_eos,
        bias=case.bias,
        mask=grammar(model, case.regex) if case.regex else None,
        sampling=midstep.Sampling(**case.sampling),
    )
    answers = midstep_eager.generate(network, tokenizer, prompt_ids(model, case), options, extra=case.entry())
    return [
        Expected(
            tuple(a.ids),
            a.text,
            a.finish_reason,
            None if a.stop_reason is None else str(a.stop_reason),
            a.report.stop.model_dump() if a.report and a.report.stop else None,
            {name: m.changed for name, m in a.report.methods.items()} if a.report else {},
        )
        for a in answers
    ]


@cache
def load(model: str) -> tuple[Any, Any]:
    """Return network and tokenizer of a model's folder, in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    return network, AutoTokenizer.from_pretrained(model)


def prompt_ids(model: str, case: Case) -> list[int]:
    """Return the prompt's token ids, through the chat template where the case is a chat."""
    tokenizer = load_tokenizer(model)
    if not case.chat:
        return list(tokenizer(case.prompt).input_ids)
    messages = [{"role": "user", "content": case.prompt}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


@cache
def load_tokenizer(model: str) -> Any:
    """Return the tokenizer of a model's folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def grammar(model: str, regex: str) -> Callable[[torch.Tensor, Sequence[int]], torch.Tensor]:
    """Return the mask that both engines' grammar library lays on the logits."""
    import xgrammar

    tokenizer = load_tokenizer(model)
    vocabulary = load(model)[0].config.vocab_size
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
    compiled = xgrammar.GrammarCompiler(info).compile_regex(regex)

    def mask(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        matcher = xgrammar.GrammarMatcher(compiled)
        for token in ids:
            matcher.accept_token(token)
        bitmask = xgrammar.allocate_token_bitmask(1, vocabulary)
        matcher.fill_next_token_bitmask(bitmask)
        allowed = (bitmask[0, :, None] >> torch.arange(32) & 1).bool().flatten()[:vocabulary]
        return logits.masked_fill(~allowed, -torch.inf)

    return mask


def vllm_params(case: Case) -> dict[str, Any]:
    """Return a case as arguments of vllm.SamplingParams (structured outputs and the prompt apart)."""
    own = dict(case.sampling)
    return {
        **own,
        "max_tokens": case.max_tokens,
        "n": case.n,
        "seed": case.seed,
        "stop": list(case.stop) or None,
        "ignore_eos": case.ignore_eos,
        "logit_bias": dict(case.bias) or None,
        "extra_args": case.entry() or None,
    }


def sglang_params(case: Case) -> dict[str, Any]:
    """Return a case as SGLang's sampling_params."""
    own = dict(case.sampling)
    if "min_tokens" in own:
        own["min_new_tokens"] = own.pop("min_tokens")
    more: dict[str, Any] = {"stop": list(case.stop)} if case.stop else {}
    more |= {"logit_bias": {str(k): v for k, v in case.bias.items()}} if case.bias else {}
    more |= {"regex": case.regex} if case.regex else {}
    more |= {"sampling_seed": case.seed} if case.seed is not None else {}
    more |= {"custom_params": case.entry()} if case.methods is not None else {}
    return {**own, "max_new_tokens": case.max_tokens, "n": case.n, "ignore_eos": case.ignore_eos, **more}


def http_body(case: Case, engine: str, model: str) -> dict[str, Any]:
    """Return a case as the body of an OpenAI-compatible request to `engine`, vllm or sglang."""
    body: dict[str, Any] = {
        "model": model,
        **case.sampling,
        "max_tokens": case.max_tokens,
        "n": case.n,
        "stream": case.stream,
        "ignore_eos": case.ignore_eos,
    }
    body |= {"messages": [{"role": "user", "content": case.prompt}]} if case.chat else {"prompt": case.prompt}
    body |= {"seed": case.seed} if case.seed is not None else {}
    body |= {"stop": list(case.stop)} if case.stop else {}
    body |= {"logit_bias": {str(k): v for k, v in case.bias.items()}} if case.bias else {}
    if case.regex:
        body |= {"structured_outputs": {"regex": case.regex}} if engine == "vllm" else {"regex": case.regex}
    if case.methods is not None:
        body |= {"vllm_xargs" if engine == "vllm" else "custom_params": case.entry()}
    return body
