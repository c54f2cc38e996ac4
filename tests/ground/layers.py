"""The thin environment of one checkout: our own distributions, editable, over other people's packages."""

from pathlib import Path

from ground import environments, places
from ground.pip import pip
from ground.progress import run

FOLDERS = ("plugins/*", "logits_processors/*", "samplers/*", "reward_hooks/*/*")
# An adapter needs its engine; everything else goes into every environment.
ADAPTERS = {"plugins/vllm": "vllm", "plugins/sglang": "sglang"}


def make(name: str, root: Path = places.ROOT) -> Path:
    """Make the checkout's environment unless it is up to date, and return its Python."""
    cached = [environments.make(name), environments.make(environments.BEHIND)]
    layer, ours = root / ".midstep" / name, distributions(name, root)
    identities = [part for folder in ours for part in (str(folder), folder / "pyproject.toml")]
    key = places.digest(str(layer), *map(str, cached), *identities)
    places.make(layer, lambda: _build(name, layer, cached, ours), key, holds="bin/python")
    return python(name, root)


def python(name: str, root: Path = places.ROOT) -> Path:
    """Return the Python of the checkout's environment."""
    return root / ".midstep" / name / "bin" / "python"


def distributions(name: str, root: Path = places.ROOT) -> list[Path]:
    """Return the folders of our own distributions that belong into the environment."""
    found = sorted(file.parent for pattern in FOLDERS for file in root.glob(f"{pattern}/pyproject.toml"))
    return [folder for folder in found if ADAPTERS.get(str(folder.relative_to(root)), name) == name]


def variables(name: str, root: Path = places.ROOT) -> dict[str, str]:
    """Return the variables for programs of the layer: its commands come first, then the cached environment's."""
    shell = environments.variables(name)
    commands = [python(name, root).parent, environments.folder(name) / "bin"]
    return shell | {"PATH": ":".join([*map(str, commands), shell.get("PATH", "")])}


def _build(name: str, layer: Path, cached: list[Path], ours: list[Path]) -> None:
    log, shell = places.begin_log(layer), environments.variables()
    empty: list[str | Path] = [cached[0] / "bin" / "python", "-m", "venv", "--without-pip", layer]
    run(f"environment {name}: empty layer", empty, log, shell)
    # addsitedir, and not a path: the .pth files of the cached environments count too; the first one's packages win.
    hooks = [f"import site; site.addsitedir({str(environments.packages(folder))!r})\n" for folder in cached]
    (environments.packages(layer) / "midstep_cached.pth").write_text("".join(hooks))
    # compat: a path in a .pth file, which mypy and editors follow; the default is an import hook, which they do not.
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--config-settings", "editable_mode=compat"]
    editable = [argument for folder in ours for argument in ("--editable", folder)]
    if ours:
        what = f"environment {name}: our {len(ours)} distributions"
        pip(layer / "bin" / "python", what, ["install", *options, *editable], log, shell)
