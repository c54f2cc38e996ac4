"""The parts of `./test`, in the order in which they run, each with its share of the time."""

from dataclasses import dataclass, field

from ground import environments, places

# What the environments and the models may take from nothing, in seconds.
GROUND_SECONDS = 14 * 60
WITHOUT_ENGINES = ("tests", "--ignore=tests/engines")
# What mypy reads; a pattern that no folder matches is left out.
TYPED = (
    "plugins/*/midstep*",
    "logits_processors/*/midstep*",
    "samplers/*/midstep*",
    "reward_hooks/*/*/midstep*",
    "tests/ground",
    "benchmarks",
    "tests/standins/sgl_kernel/sgl_kernel",
    "tests/standins/torchvision_on_cpu/torchvision_on_cpu.py",
    "tests/standins/triton_interpreter_backend/triton_interpreter_backend",
)


@dataclass(frozen=True)
class Part:
    """One line of the table that `./test` prints."""

    name: str
    # Its share of the time: beyond it the part has failed.
    seconds: float
    # Modules with their arguments, run one after the other; an argument with a * becomes the paths that match.
    commands: tuple[tuple[str, ...], ...]
    # One of environments.RECIPES.
    environment: str = "torch"
    # Beside those of the environment.
    variables: dict[str, str] = field(default_factory=dict)
    # Other environments whose packages the variables put on the path.
    borrows: tuple[str, ...] = ()


def pytest(marks: str, *arguments: str) -> tuple[str, ...]:
    """Return the command for the tests with these marks."""
    return ("pytest", *arguments, "-m", marks)


# Methods that fail in every way: a distribution that is found where this folder is on the path.
FAULTY = str(places.ROOT / "tests" / "engines" / "faulty")


def on_path(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables of an engine's part: the faulty methods are installed for it."""
    return {**variables, "PYTHONPATH": ":".join(filter(None, [FAULTY, variables.get("PYTHONPATH", "")]))}


def engine(name: str, seconds: float, folder: str, variables: dict[str, str]) -> Part:
    """Return the part that runs the tests of one engine's folder."""
    return Part(
        name, seconds, (pytest("not long", "--durations=12", f"tests/engines/{folder}"),), folder, on_path(variables)
    )


# Two run at a time: the longest ones first, after what fails soonest. A share is of a part's own clock, with another
# part beside it: so both of vLLM's take what the longer one takes. They are wide: the same machine was two to three
# times slower for an hour, and the parts were not timed on it since.
PARTS = (
    Part("style", 120, (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy", *TYPED))),
    engine("vllm-v1", 2100, "vllm", {"VLLM_USE_V2_MODEL_RUNNER": "0"}),
    engine("vllm-v2", 1800, "vllm", environments.v2_variables()),
    engine("sglang", 2100, "sglang", {}),
    Part("core", 1200, (pytest("not kernel and not gpu and not compile and not long", *WITHOUT_ENGINES),)),
    Part("kernels", 1200, (pytest("kernel and not long", *WITHOUT_ENGINES),), variables={"TRITON_INTERPRET": "1"}),
    Part("compile", 600, (pytest("compile and not long", *WITHOUT_ENGINES),)),
    Part(
        "compile-3.6",
        600,
        (pytest("compile and not long", *WITHOUT_ENGINES),),
        variables={"PYTHONPATH": str(environments.packages(environments.folder("older_triton")))},
        borrows=("older_triton",),
    ),
)

# What `./test --long` runs; the tests write their results themselves.
LONG_PARTS = (
    Part("vllm-v1", 3600, (pytest("long", "tests/engines/vllm"),), "vllm", on_path({"VLLM_USE_V2_MODEL_RUNNER": "0"})),
    Part("vllm-v2", 3600, (pytest("long", "tests/engines/vllm"),), "vllm", on_path(environments.v2_variables())),
    Part("sglang", 3600, (pytest("long", "tests/engines/sglang"),), "sglang", on_path({})),
    Part("core", 600, (pytest("long", *WITHOUT_ENGINES),)),
)


def of_method(name: str, methods: list[str], files: list[str], laws: list[str]) -> Part:
    """Return the part that `./test NAME` runs: the distribution's files, and the laws' cases of its methods."""
    mine = " or ".join(sorted({name, *(f"[{method}]" for method in methods)}))
    command = (*pytest("not gpu and not compile and not long", *files, *laws), "-k", mine)
    return Part(name, 30, (command,), variables={"TRITON_INTERPRET": "1"})
