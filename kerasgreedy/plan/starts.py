"""What a recipe can start from: told from its name and what lies there. No TensorFlow."""

from typing import Literal, TypeAlias

from kerasgreedy.files import user_path

StartKind: TypeAlias = Literal["run", "export", "keras", "application"]
APPLICATION = "keras.applications:"
ENDINGS = (".keras", ".h5")


def start_kind(place: str) -> StartKind | None:
    """What lies there; None: nothing that a run starts from."""
    if place.startswith(APPLICATION):
        return "application"
    path = user_path(place)
    if path.suffix in ENDINGS:
        return "keras" if path.is_file() else None
    if (path / "run.json").is_file():
        return "run"
    folders = [path, *(each for each in path.iterdir() if each.name.isdecimal())] if path.is_dir() else []
    return "export" if any((folder / "assets" / "model_card.json").is_file() for folder in folders) else None
