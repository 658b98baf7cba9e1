"""Whole training runs in fresh processes: this package's, and the PyTorch script's doing the same."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import TUNED_ENVIRONMENT
from benchmarks.specs import RECIPE, narrower, recipe_settings
from benchmarks.workers import ROOT


@dataclass(frozen=True)
class Setting:
    """What all runs of a comparison have in common.

    Attributes:
        spec: a shipped name or a file.
        data: folder with train/<class>/ and test/<class>/.
        every: epochs between two drops of the learning rate by `factor`.
        width: filters of the first block, the others in proportion; None: as the spec says.
        seed: of split, order, initial weights and augmentation.
        initializer: of both sides: `he_normal` or `pytorch`.
    """

    spec: str
    data: Path
    epochs: int
    every: int
    batch: int = 128
    keep: str = "last"
    precision: str = "float32"
    validation: float = 0.1
    width: int | None = None
    factor: float = 0.2
    seed: int = 0
    initializer: str = "he_normal"

    def ours(self, out: Path, views: int | None = None, extra: Sequence[str] = ()) -> list[str]:
        """The `kerasgreedy train` command.

        Args:
            views: see `recipe_settings`.
            extra: further `--set` texts, which win.
        """
        sets = [
            *(narrower(self.spec, self.width) if self.width else []),
            *recipe_settings(self.precision, views=views),
            f"data.dataset=folder:{self.data}",
            f"data.validation={self.validation}",
            f"training.epochs={self.epochs}",
            f"training.batch_size={self.batch}",
            f"training.schedule.every={self.every}",
            f"training.schedule.factor={self.factor}",
            f"training.keep={self.keep}",
            f"seed={self.seed}",
            *([] if self.initializer == "he_normal" else [f"block_defaults.initializer={self.initializer}"]),
            *extra,
        ]
        flags = [part for text in dict(text.partition("=")[::2] for text in sets).items() for part in ("--set", "=".join(text))]
        command = [sys.executable, "-m", "kerasgreedy", "train", self.spec, "--recipe", RECIPE, "--quiet"]
        return [*command, "--workdir", str(out), *flags]

    def torch(self, out: Path, compiled: bool = False, paired: Path | None = None) -> list[str]:
        """The PyTorch script's command.

        Args:
            paired: weights of ours that it begins with, see `benchmarks.torch_train`.
        """
        values = {
            "spec": self.spec,
            "data": self.data,
            "out": out,
            "epochs": self.epochs,
            "every": self.every,
            "factor": self.factor,
            "batch": self.batch,
            "keep": self.keep,
            "precision": self.precision,
            "validation": self.validation,
            "seed": self.seed,
            "initializer": self.initializer,
            **({"width": self.width} if self.width else {}),
            **({"paired": paired} if paired else {}),
        }
        flags = [part for key, value in values.items() for part in (f"--{key}", str(value))]
        return [sys.executable, "-m", "benchmarks.torch_train", *flags, *(["--compiled"] if compiled else [])]


def run(command: Sequence[str], tuned: bool) -> tuple[float, float]:
    """Runs a command to its end; returns when it started (seconds since 1970) and how many seconds it took.

    Raises:
        SystemExit: it failed; with its last lines.
    """
    kept = {key: value for key, value in os.environ.items() if key not in TUNED_ENVIRONMENT}
    environment = {**kept, **(TUNED_ENVIRONMENT if tuned else {}), "TF_CPP_MIN_LOG_LEVEL": "3"}
    started, before = time.time(), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - before
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return started, seconds


def folder_of(text: str) -> Path:
    """`folder:PATH` or PATH, as an absolute path that has train/ and test/ inside."""
    path = Path(text.removeprefix("folder:")).expanduser().absolute()
    for split in ("train", "test"):
        if not (path / split).is_dir():
            raise SystemExit(f"--data: {path} has no folder '{split}'; allowed: a folder with train/<class>/ and test/<class>/")
    return path


def linked_part(source: Path, target: Path, train: int | None, test: int | None) -> Path:
    """A folder of links to the first images of every class, so that nobody decodes what is not used.

    Args:
        train, test: images of each split, in equal shares of the classes; None: all.
    """
    for split, wanted in (("train", train), ("test", test)):
        classes = sorted(path for path in (source / split).iterdir() if path.is_dir())
        for folder in classes:
            (target / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[: wanted // len(classes) if wanted else None]:
                (target / split / folder.name / file.name).symlink_to(file)
    return target


OWN = "further settings of ours that do not change what is trained, such as cache.memory_gb=8"


def own_setting(text: str) -> str:
    """A `--set` for ours only; refuses what PyTorch's side would have to follow."""
    if not text.startswith(("cache.", "checkpoint_minutes=")):
        raise argparse.ArgumentTypeError(f"received '{text}'; allowed: cache.KEY=VALUE, checkpoint_minutes=VALUE")
    return text
