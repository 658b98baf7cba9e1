"""What is no file where one should be, and names that mean something to somebody."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from .situations import TRAIN, Situation, there

NO_FILES, NAMES = "d: pipes, devices, folders in the place of files", "d: names"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def nothing(_: Path) -> None:
    return


def empty(path: Path) -> None:
    path.touch()


WHAT: dict[str, Callable[[Path], None]] = {"pipe": pipe, "device": zero, "folder": folder, "missing": nothing, "empty": empty}
# What is put in the place of: the path; then the command, and what it needs.
ROLES: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "spec": ("spec.yaml", TRAIN, ()),
    "recipe": ("recipe.yaml", TRAIN, ()),
    "spec to validate": ("spec.yaml", ("validate", "spec.yaml"), ()),
    "npz": ("some.npz", ("train", "-q", "spec.yaml", "-r", "npz.yaml", "-w", "new"), ("npz.yaml", "some.npz")),
    "npz to show": ("some.npz", ("data", "show", "npz:some.npz", "-o", "new.png"), ("some.npz",)),
    "idx": ("idx/train-images-idx3-ubyte", ("train", "-q", "spec.yaml", "-r", "idx.yaml", "-w", "new"), ("idx.yaml", "idx")),
    "image to name": ("digit.png", ("predict", "out", "digit.png"), ("out", "digit.png")),
    "image of a class": (
        "images/train/a/00.png", ("train", "-q", "spec.yaml", "-r", "folder.yaml", "-w", "new"), ("folder.yaml", "images")),
    "streamed image": (
        "images/train/a/00.png",
        ("train", "-q", "spec.yaml", "-r", "folder.yaml", "-w", "new", "-s", "data.augment.random_resized_crop=true"),
        ("folder.yaml", "images"),
    ),
    "image left out": (
        "images/train/a/00.png",
        ("train", "-q", "spec.yaml", "-r", "folder.yaml", "-w", "new", "-s", "data.corrupt=skip"),
        ("folder.yaml", "images"),
    ),
    "run": ("run", ("evaluate", "run"), ("run",)),
    "run to compare": ("run", ("compare", "run"), ("run",)),
    "run to export": ("run", ("export", "-q", "run", "new"), ("run",)),
    "export": ("out", ("predict", "out", "digit.png"), ("out", "digit.png")),
    "manifest of an export": ("out/1/export.json", ("predict", "out", "digit.png"), ("out", "digit.png")),
    "run.json": ("run/run.json", ("evaluate", "run"), ("run",)),
}  # fmt: skip
# Where what is put there is as good as nothing: hidden from those who look for files, or left out.
HARMLESS = {
    "image of a class": ("folder", "missing"),
    "streamed image": ("folder", "missing"),
    "image left out": tuple(WHAT),
    "manifest of an export": ("missing",),
}


def no_files() -> list[Situation]:
    """One of each in the place of each."""
    found = []
    for role, (name, command, needs) in ROLES.items():
        for what, put in WHAT.items():

            def before(place: Path, name: str = name, put: Callable[[Path], None] = put) -> None:
                path = place / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                put(path)

            found.append(Situation(NO_FILES, f"{what} as {role}", command, ".", what in HARMLESS.get(role, ()), needs, before))
    return found


ODD = ("a[b]", "a{b}", "a*b?", "a\\b", "a$b#c", "a\nb", "a\udcffb", "a\x1b[31mb", "a\u202eb", "-a b")
# Command with the name in it, needs, what is renamed to it (and what must be there).
PLACES: dict[str, tuple[Sequence[str], Sequence[str], str, str]] = {
    "run folder": (("train", "-q", "spec.yaml", "-r", "recipe.yaml", "-w", "./{}"), (), "", "{}/results.json"),
    "finished run": (("evaluate", "./{}"), ("run",), "run", ""),
    "export folder": (("export", "-q", "run", "./{}"), ("run",), "", "{}/1/saved_model.pb"),
    "exported": (("predict", "./{}", "digit.png"), ("out", "digit.png"), "out", ""),
    "image to name": (("predict", "out", "./{}.png"), ("out", "digit.png"), "digit.png", ""),
    "data folder": (("data", "show", "folder:./{}", "-o", "new.png"), ("images",), "images", "new.png"),
    "class": (("data", "show", "folder:images", "-o", "new.png"), ("images",), "images/train/a", "new.png"),
    "npz file": (("data", "show", "npz:./{}.npz", "-o", "new.png"), ("some.npz",), "some.npz", "new.png"),
    "plot": (("compare", "run", "--plot", "./{}.png"), ("run",), "", "{}.png"),
    "compared run": (("compare", "./{}", "--plot", "new.png"), ("run",), "run", "new.png"),
    "spec": (("train", "-q", "./{}.yaml", "-r", "recipe.yaml", "-w", "new"), (), "spec.yaml", "new/results.json"),
}  # fmt: skip
SLOW = ("run folder", "export folder", "spec")
# Trainings and exports are tried with those that have failed before.
TELLING = ("a[b]", "a{b}", "a\\b", "a\udcffb")


def names() -> list[Situation]:
    """Each name in each place. Names that nobody can use are refused, in words that a terminal can be given."""
    found = []
    for role, (command, needs, renamed, expected) in PLACES.items():
        for name in TELLING if role in SLOW else ODD:

            def before(place: Path, name: str = name, renamed: str = renamed, role: str = role) -> None:
                if renamed:
                    source = place / renamed
                    source.rename(source.with_name(name + source.suffix))
                if role == "class":
                    (place / "images/test/a").rename(place / "images/test" / name)

            filled = [part.replace("{}", name) for part in command]
            check = there(expected.replace("{}", name)) if expected else None
            found.append(Situation(NAMES, f"{name!a} as {role}", filled, ".", True, needs, before, check))
    return found
