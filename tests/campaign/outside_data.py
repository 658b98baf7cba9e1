"""Small data sets of each kind of file, and a run whose weights are huge."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from kerasgreedy.runs.checkpoint import CheckpointStore

from .situations import DATA, SMALL

KINDS = {"folder": "folder:images", "npz": "npz:some.npz", "idx": "mnist"}
IDX = {"train": "train", "test": "t10k"}


def write(place: Path) -> None:
    """`images/`, `some.npz` and `idx/` of two classes (idx: ten), and a recipe for each."""
    pixels, labels = load_digits(n_class=2, return_X_y=True)
    images = (pixels.reshape(-1, 8, 8) * 15).astype("uint8")
    parts = {"train": slice(0, 32), "test": slice(32, 48)}
    for split, part in parts.items():
        for number, (image, label) in enumerate(zip(images[part], labels[part], strict=True)):
            folder = place / f"images/{split}/{'ab'[label]}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:02d}.png")
    arrays = {f"{axis}_{split}": values[part] for split, part in parts.items() for axis, values in (("x", images), ("y", labels))}
    np.savez(place / "some.npz", **arrays)
    Image.fromarray(images[0]).save(place / "digit.png")
    pixels, labels = load_digits(return_X_y=True)
    for split, part in parts.items():
        write_idx(place / "idx", split, pixels[part].reshape(-1, 8, 8).astype("uint8"), labels[part])
    for kind, name in KINDS.items():
        more = ", data_dir: idx" if kind == "idx" else ""
        (place / f"{kind}.yaml").write_text(SMALL.recipe.replace(DATA, f"{{dataset: '{name}', validation: 8{more}}}"))


def write_idx(folder: Path, split: str, images: Any, labels: Any) -> None:
    """Two idx files, rewritten in place where they are there."""
    folder.mkdir(exist_ok=True)
    head = struct.pack(">BBBBIII", 0, 0, 8, 3, *images.shape)
    (folder / f"{IDX[split]}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    head = struct.pack(">BBBBI", 0, 0, 8, 1, len(labels))
    (folder / f"{IDX[split]}-labels-idx1-ubyte").write_bytes(head + labels.astype("uint8").tobytes())


def make_huge(run: Path) -> None:
    """Every kernel of the newest checkpoint becomes 3e38: finite, and nothing that it gives is."""
    store = CheckpointStore(run / "checkpoints")
    snapshot, _ = store.load()
    assert snapshot is not None
    arrays = {
        group: {key: np.full_like(array, 3e38) if array.ndim > 1 else array for key, array in given.items()}
        for group, given in snapshot.arrays.items()
    }
    store.save(snapshot.meta, arrays, list(arrays))


def move(run: Path, old: Path, new: Path) -> None:
    """Lets a run take its data, whose place it knows, from another folder."""
    recipe = (run / "recipe.yaml").read_text().replace(str(old), str(new))
    (run / "recipe.yaml").write_text(recipe)
    facts = json.loads((run / "run.json").read_text().replace(str(old), str(new)))
    facts["files"]["recipe.yaml"] = hashlib.sha256(recipe.encode()).hexdigest()
    del facts["sha256"]
    (run / "run.json").write_text(json.dumps({**facts, "sha256": hashlib.sha256(json.dumps(facts).encode()).hexdigest()}))
