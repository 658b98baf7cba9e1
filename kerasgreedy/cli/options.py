"""Options that several commands share, and what they do before TensorFlow is loaded."""

import logging
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from kerasgreedy.errors import InputError
from kerasgreedy.files import check_temporary
from kerasgreedy.nn.backend import check_backend

# Bytes of addresses that TensorFlow takes on two cores for the smallest network. With fewer it ends the process without a word.
LEAST_ADDRESSES = 3_000_000_000

RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", "-r", metavar="RECIPE", help="Recipe: a file or a shipped name. Default: quickstart."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY.KEY=VALUE", help="Override a value of the spec or the recipe. May be repeated."),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="N|NAMES",
        help="One copy of the network on each of so many GPUs (without GPUs: parts of the CPU), or of GPU:0,GPU:1.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there though kerasgreedy did not make it.")]
CheckData = Annotated[
    bool,
    typer.Option("--check-data", help="Compare the contents of all data files, not only of those that look changed."),
]
DataAt = Annotated[
    str | None,
    typer.Option("--data", metavar="PLACE", help="Where the run's data are now: a path, or as in a recipe."),
]
NewWorkdir = Annotated[
    Path | None, typer.Option("--workdir", "-w", metavar="DIR", help="New run folder. Default: runs/<spec>-<recipe>-<time>.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="End standard output with one JSON object.")]


def quiet_tensorflow() -> None:
    """Loads TensorFlow without its start-up notices, which say nothing about the run. `--debug` lets them through.

    They are written by C++ code before any log level counts, so standard error itself is turned away for the moment.
    Which devices are used is said by the run's own first lines.
    """
    check_backend()
    check_temporary()
    _check_addresses()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(keras|tensorflow).*")
    if "--debug" in sys.argv:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Different whole numbers from 0, with commas between them.

    Raises:
        InputError: they are not.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts) or len({*map(int, parts)}) < len(parts):
        raise InputError(f"{option}: received '{text}'; allowed: different whole numbers from 0, with commas between them")
    return tuple(map(int, parts))


def _check_addresses() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        raise InputError(
            f"out of memory: a limit (ulimit -v) leaves {limit / 1e9:.2f} GB of addresses; TensorFlow needs at least "
            f"{LEAST_ADDRESSES / 1e9:g}, a larger network more"
        )
