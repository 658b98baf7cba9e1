"""The runs that faults come to, and what is compared of them."""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasgreedy.reports.run_files import read_metrics
from kerasgreedy.runs.checkpoint import CheckpointStore

# Facts of a clock, not of a run.
TIMES = ("time", "images_per_second", "elapsed_seconds", "peak_memory_bytes", "training_seconds", "latency")

DATA = "{dataset: digits, train_examples: 96, test_examples: 40, validation: 32, augment: {pad_crop: 1}, augment_views: 2}"
SGD = "{name: sgd, learning_rate: 0.05, momentum: 0.9, weight_decay: 5e-4}"


@dataclass(frozen=True)
class Workload:
    """A small run: 64 images in batches of 16, two views of each, features of frozen blocks and masks on disk."""

    name: str
    spec: str
    recipe: str

    def command(self, folder: Path, workdir: Path, *more: str) -> list[str]:
        """Writes spec and recipe to a folder; what follows `kerasgreedy` to train them."""
        folder.mkdir(parents=True, exist_ok=True)
        spec, recipe = folder / "spec.yaml", folder / "recipe.yaml"
        spec.write_text(self.spec)
        recipe.write_text(self.recipe)
        return ["train", "-q", str(spec), "-r", str(recipe), "-w", str(workdir), *more]


GREEDY = Workload(
    "greedy",
    """
name: tiny
block_defaults: {batch_norm: true}
blocks:
  - {conv: 3}
  - [{conv: 4, downsample: invertible}, {dropout: 0.25}]
  - {conv: 4}
auxiliary_head: {pool_to: 2}
""",
    f"""
name: greedy
data: {DATA}
training: {{epochs: 4, batch_size: 16, optimizer: {SGD}, keep: best}}
cache: {{store: disk}}
""",
)

PRUNED = Workload(
    "pruned",
    """
name: tiny
block_defaults: {batch_norm: true}
blocks:
  - {conv: 4}
  - [{conv: 6, downsample: invertible}, {residual: [{conv: 5}, {conv: 6, activation: linear}]}]
auxiliary_head: {pool_to: 2}
""",
    f"""
name: pruned
data: {DATA}
training: {{epochs: 4, batch_size: 16, optimizer: {SGD}}}
prune: {{keep: 0.5, fine_tune: {{epochs: 2}}}}
replace_head: {{head: {{hidden_layers: 1, width: 3}}, training: {{epochs: 2}}}}
cache: {{store: disk}}
""",
)

MASKED = Workload(
    "masked",
    """
name: tiny
block_defaults: {activation: positive_hard_threshold, threshold: {beta: 0.05, learn: warm_up, per: channel}}
blocks:
  - {conv: 3, batch_norm: true}
  - [{dropout: 0.25}, {conv: 4, downsample: max}]
auxiliary_head: {hidden_layers: 1, pool_to: 2}
""",
    f"""
name: masked
data: {DATA}
training:
  epochs: 4
  batch_size: 16
  optimizer: {SGD}
  solver: {{name: alternation, warm_up_epochs: 1, refresh: 2, hold_pools: true, store: disk}}
  keep: best
cache: {{store: disk}}
""",
)

ALL = (GREEDY, PRUNED, MASKED)


def timeless(value: Any) -> Any:
    """JSON without what a clock said."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def weights(workdir: Path) -> dict[str, bytes]:
    """Every array of the newest checkpoint, optimiser and random state included, bit for bit."""
    snapshot, faults = CheckpointStore(workdir / "checkpoints").load()
    if snapshot is None or faults:
        return {"faults": "\n".join(faults).encode()}
    return {
        f"{group}/{key}": f"{array.dtype}{array.shape}".encode() + array.tobytes()
        for group, arrays in snapshot.arrays.items()
        for key, array in arrays.items()
    }


def outcome(workdir: Path) -> dict[str, Any]:
    """All that a finished run came to, by name."""
    files = [*sorted(workdir.glob("pruning/*")), *workdir.glob("pruned_spec.yaml"), *sorted(workdir.glob("support/*"))]
    return {
        "weights": weights(workdir),
        "metrics.jsonl": timeless(read_metrics(workdir)),
        "results.json": timeless(json.loads((workdir / "results.json").read_text())),
        "model.keras": model_weights(workdir / "model.keras"),
        **{str(path.relative_to(workdir)): path.read_bytes() if path.suffix != ".npz" else npz(path) for path in files},
    }


def npz(path: Path) -> dict[str, bytes]:
    """The arrays of a support file."""
    with np.load(path) as content:
        return {key: content[key].tobytes() for key in content.files}


def model_weights(path: Path) -> dict[str, bytes]:
    """The arrays in a .keras file."""
    found: dict[str, bytes] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file, h5py.File(file, "r") as content:
        content.visititems(take)
    return found


def differences(workdir: Path, expected: dict[str, Any]) -> list[str]:
    """Names of what is not as in an undisturbed run."""
    got = outcome(workdir)
    return sorted(name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name))


def litter(workdir: Path) -> list[str]:
    """Files that a fault left behind and nobody needs."""
    left = [str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.name.endswith((".tmp", ".new"))]
    hidden = [path.name for path in workdir.rglob(".*") if path.name != ".lock"]
    return left + hidden + (["cache"] if (workdir / "cache").exists() else [])


def tree(folder: Path) -> dict[str, str]:
    """Files below a folder with their checksums."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
