"""Run folders whose files are not what they were, and data that changed between stop and resume."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .damage import manifests, objects
from .nursery import Ended
from .outside_data import write_idx
from .situations import RESUME, Situation, finite, same_files

RUNS, DATA = "e: run folders", "f: data that changed"
EVALUATE = ("evaluate", "stopped", "--json")
Change = Callable[[Path], Any]


def _lines(change: Callable[[list[str]], list[str]]) -> Change:
    def before(place: Path) -> None:
        path = place / "stopped/metrics.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return before


def _record(**more: Any) -> Callable[[list[str]], list[str]]:
    return lambda lines: [json.dumps({**json.loads(lines[0]), **more}) + "\n", *lines[1:]]


LOGS: dict[str, Callable[[list[str]], list[str]]] = {
    "empty": lambda _: [],
    "the first record is missing": lambda lines: lines[1:],
    "the last record is missing": lambda lines: lines[:-1],
    "swapped records": lambda lines: lines[1::-1] + lines[2:],
    "a record twice": lambda lines: [lines[0], *lines],
    "another loss": _record(loss=0.125),
    "NaN as a loss": _record(loss=float("nan")),
    "a text as a loss": _record(loss="low"),
    "a foreign phase": _record(phase=7, phase_name="block_8"),
    "half of a record": lambda lines: [lines[0][: len(lines[0]) // 2], *lines[1:]],
    "no JSON": lambda lines: ["what\n", *lines[1:]],
    "a list": lambda lines: ["[1]\n", *lines[1:]],
    "more after the end": lambda lines: [*lines, lines[0], '{"a": 1}\n'],
    "binary": lambda lines: ["\0\x01\x7f\n", *lines],
}
AS_FOLDERS = (
    "metrics.jsonl", "model.keras", "results.json", "results.md", "plan.json", "run.json", "spec.yaml", "x.tmp",
    "checkpoints/x.tmp", ".kerasgreedy-0.tmp", "checkpoints/000099.json", "data_files.json", "changed_recipe.yaml",
    "pruned_spec.yaml",
)  # fmt: skip
AS_FILES = ("checkpoints", "cache", "plots", "pruning", "support", "tensorboard", "checkpoints/objects")
NUMBERS = ("phase", "epoch", "step")
VALUES = (float("nan"), float("inf"), -1, 1.5, "1", None, True, 10**400)


def _replaced(name: str, make: Callable[[Path], Any]) -> Change:
    def before(place: Path) -> None:
        path = place / "stopped" / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        make(path)

    return before


def _facts(change: Callable[[Any], Any]) -> Change:
    """Every manifest holds other facts, with the right checksum."""

    def before(place: Path) -> None:
        for path in manifests(place / "stopped"):
            content = json.loads(json.loads(path.read_text())["body"])
            body = json.dumps(change(content))
            path.write_text(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}))

    return before


def _with_number(content: Any, name: str, value: Any) -> Any:
    """Wherever the fact of that name stands."""
    if isinstance(content, dict):
        return {key: value if key == name else _with_number(part, name, value) for key, part in content.items()}
    return content


def _linked(place: Path) -> None:
    shutil.copytree(place / "stopped", place / "snapshot", copy_function=os.link)
    shutil.copytree(place / "stopped", place / "as it was")


def _snapshot_stays(place: Path, _: Ended) -> str:
    return "" if same_files(place / "snapshot", place / "as it was") else "the snapshot changed"


def _linked_outside(place: Path) -> None:
    for path in sorted((place / "stopped").rglob("*")):
        if path.is_file():
            os.link(path, place / f"outside_{path.name}")
    shutil.copytree(place, place.with_name(place.name + "_"), dirs_exist_ok=True)


def _outside_stays(place: Path, _: Ended) -> str:
    copy = place.with_name(place.name + "_")
    changed = [path.name for path in place.glob("outside_*") if path.read_bytes() != (copy / path.name).read_bytes()]
    shutil.rmtree(copy)
    return f"changed outside: {', '.join(changed)}" if changed else ""


def _purged(group: str) -> Change:
    return lambda place: [objects(path)[group].unlink(missing_ok=True) for path in manifests(place / "stopped")]


def damaged() -> list[Situation]:
    """Logs, folders and files in each other's place, links, facts and objects."""
    done = finite("stopped/results.json")
    cases: dict[str, Change] = {f"log, {what}": _lines(change) for what, change in LOGS.items()}
    cases |= {f"a folder as {name}": _replaced(name, Path.mkdir) for name in AS_FOLDERS}
    cases |= {f"a file as {name}": _replaced(name, lambda path: path.write_text("x")) for name in AS_FILES}
    cases |= {f"no {group} in the store": _purged(group) for group in ("network/block_1", "network/head_1", "network/block_2")}
    found = [Situation(RUNS, what, RESUME, ".", True, ("stopped",), before, done) for what, before in cases.items()]
    for name in NUMBERS:
        for value in VALUES:
            before = _facts(lambda content, name=name, value=value: _with_number(content, name, value))
            found.append(
                Situation(RUNS, f"{name} is {str(value)[:9]} in the checkpoints", EVALUATE, ".", False, ("stopped",), before)
            )
    for what, change in (
        ("no facts", lambda c: {**c, "meta": {}}),
        ("a list", lambda c: [c]),
        ("no objects", lambda c: {**c, "objects": {}}),
    ):
        found.append(Situation(RUNS, f"{what} in the checkpoints", EVALUATE, ".", True, ("stopped",), _facts(change)))
    found += [
        Situation(RUNS, "a snapshot by hard links", RESUME, needs=("stopped",), before=_linked, check=_snapshot_stays),
        Situation(RUNS, "hard links to files outside", RESUME, needs=("stopped",), before=_linked_outside, check=_outside_stays),
    ]
    return found


def _image(place: Path) -> None:
    path = place / "images/train/a/00.png"
    pixels = np.array(Image.open(path))
    pixels[3, 3] ^= 0xFF
    Image.fromarray(pixels).save(path)


def _same_size(place: Path) -> None:
    """One byte of the pixels of a bitmap-like file, its times as before."""
    path = place / "idx/train-images-idx3-ubyte"
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _swapped(place: Path) -> None:
    train = place / "images/train"
    for name, other in (("a", "x"), ("b", "a"), ("x", "b")):
        (train / name).rename(train / other)


def _two_swapped(place: Path) -> None:
    a, b = place / "images/train/a/00.png", place / "images/train/b/01.png"
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def _npz(place: Path, name: str, change: Callable[[Any], Any]) -> None:
    with np.load(place / "some.npz") as arrays:
        content = dict(arrays)
    content[name] = change(content[name])
    np.savez(place / "some.npz", **content)


def _idx(place: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8), dtype=np.uint8)
    write_idx(place / "idx", "train", images, np.arange(32) % 10)


def _copied(name: str) -> Change:
    def before(place: Path) -> None:
        path = place / name
        copy = path.with_name("copy")
        shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        copy.rename(path)

    return before


# What was changed, by kind of data: those to be refused, and those that are fine.
CHANGES: dict[str, tuple[str, Change, bool]] = {
    "one image": ("folder", _image, False),
    "two images swapped": ("folder", _two_swapped, False),
    "swapped classes": ("folder", _swapped, False),
    "an image more": ("folder", lambda place: shutil.copy(place / "digit.png", place / "images/train/a/99.png"), False),
    "an image less": ("folder", lambda place: (place / "images/train/a/00.png").unlink(), False),
    "a test image": ("folder", lambda place: shutil.copy(place / "digit.png", next((place / "images/test/b").iterdir())), False),
    "a touched image": ("folder", lambda place: os.utime(place / "images/train/a/00.png"), True),
    "a copied folder": ("folder", _copied("images"), True),
    "pixels of the npz file": ("npz", lambda place: _npz(place, "x_train", lambda x: 255 - x), False),
    "labels of the npz file": ("npz", lambda place: _npz(place, "y_train", lambda y: 1 - y), False),
    "test labels of the npz file": ("npz", lambda place: _npz(place, "y_test", lambda y: 1 - y), False),
    "a touched npz file": ("npz", lambda place: os.utime(place / "some.npz"), True),
    "a copied npz file": ("npz", _copied("some.npz"), True),
    "an idx file, rewritten": ("idx", _idx, False),
    "a byte of an idx file, its time as before": ("idx", _same_size, False),
    "a touched idx file": ("idx", lambda place: os.utime(place / "idx/train-images-idx3-ubyte"), True),
    "a copied idx folder": ("idx", _copied("idx"), True),
}
NEEDS = {"folder": "images", "npz": "some.npz", "idx": "idx"}


def changed_data() -> list[Situation]:
    """Resumed and evaluated."""
    found = []
    for what, (kind, before, fine) in CHANGES.items():
        run = f"stopped_{kind}"
        for name, command in {
            "resumed": ("train", "-q", "--resume", run),
            "resumed with --check-data": ("train", "-q", "--resume", run, "--check-data"),
            "evaluated": ("evaluate", run),
        }.items():
            if fine and name == "resumed with --check-data" and kind != "folder":
                continue
            says = "" if fine else r"contents changed|the data changed"
            either = name == "evaluated"
            found.append(
                Situation(
                    DATA,
                    f"{what}, {name}",
                    command,
                    says or ("." if either else ""),
                    either,
                    (run, NEEDS[kind], "digit.png"),
                    before,
                )
            )
    return found
