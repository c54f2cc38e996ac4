"""Make all that some environments need: themselves, our distributions in them, and the models."""

from ground import environments, layers, model, places


def prepare(names: list[str]) -> None:
    """Make what is not there yet of the named environments and the models.

    Raises: GroundError if the disk is too small, the network is gone, or an installation fails.
    """
    wanted = [*names, environments.BEHIND]
    made = {environments.folder(name): environments.RECIPES[name].gigabytes for name in wanted}
    made[model.folder()] = model.GIGABYTES
    places.require_space(sum(size for folder, size in made.items() if not places.is_complete(folder)))
    for name in names:
        if name in environments.WITHOUT_LAYER:
            environments.make(name)
        else:
            layers.make(name)
    model.make(next(name for name in names if name not in environments.WITHOUT_LAYER))
