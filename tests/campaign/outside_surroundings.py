"""Streams that are closed or full, limits of files and memory, numbers without measure."""

from collections.abc import Sequence

from .nursery import Around
from .situations import TRAIN, Situation, said_json, there

STREAMS, LIMITS, NUMBERS = "b: standard streams", "c: limits of files and memory", "c: numbers without measure"
PLAN = ("plan", "spec.yaml", "-r", "recipe.yaml")
FINISH = ("finish", "-q", "run", "new", "-m", "cluster", "--epochs", "1")
PRUNE = ("prune", "-q", "run", "-w", "new", "--keep", "2", "--epochs", "0")
EXPORT = ("export", "-q", "run", "new")
SHOW = ("data", "show", "digits", "-o", "new.png")
COMPARE = ("compare", "run", "--plot", "new.png")
SENSITIVITY = ("sensitivity", "run", "--out", "new", "--shares", "0.5")
PREDICT = ("predict", "out", "digit.png")

# Command, what it needs, what it leaves.
COMMANDS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "train": (TRAIN, (), ("new/results.json", "new/model.keras")),
    "evaluate": (("evaluate", "run"), ("run",), ()),
    "compare": (COMPARE, ("run",), ("new.png",)),
    "plan": (PLAN, (), ()),
    "data show": (SHOW, (), ("new.png",)),
    "export": (EXPORT, ("run",), ("new/1/saved_model.pb",)),
    "predict": (PREDICT, ("out", "digit.png"), ()),
}
CLOSED = {"<&-": (0,), ">&-": (1,), "2>&-": (2,), "all closed": (0, 1, 2)}
FULL = {">/dev/full": (1,), "2>/dev/full": (2,)}
SLOW = ("train", "export")


def streams() -> list[Situation]:
    """What is closed does no harm; output that finds no room is said, and what was made stays."""
    found = []
    for name, (command, needs, leaves) in COMMANDS.items():
        for json in ((), ("--json",)):
            for what, numbers in CLOSED.items():
                if name in SLOW and (what != "all closed" or json):
                    continue
                check = said_json if json and 1 not in numbers else there(*leaves)
                around = Around(closed=numbers)
                found.append(
                    Situation(
                        STREAMS, f"{name} {' '.join(json)} {what}", [*command, *json], needs=needs, check=check, around=around
                    )
                )
            for what, numbers in FULL.items():
                if name in SLOW and json:
                    continue
                check = said_json if json and 1 not in numbers else there(*leaves)
                says = "No space left on device" if 1 in numbers else ""
                situation = Situation(
                    STREAMS, f"{name} {' '.join(json)} {what}", [*command, *json], says, needs=needs, check=check, absent=()
                )
                situation.around = Around(full=numbers)
                situation.after = [("evaluate", "new")] if name == "train" and says else []
                found.append(situation)
    return found


# Command, what it needs, sizes in bytes, what may not be there after an error.
FILE_LIMITS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[int], Sequence[str]]] = {
    "train": (TRAIN, (), (300, 1000, 3000, 20_000), ("new/results.json",)),
    "train, cache on disk": ((*TRAIN, "-s", "cache.store=disk"), (), (2500, 5000), ("new/results.json",)),
    "export": (EXPORT, ("run",), (300, 10_000, 60_000), ("new/1",)),
    "finish": (FINISH, ("run",), (300, 1000), ("new",)),
    "prune": (PRUNE, ("run",), (300, 2000), ("new/results.json",)),
    "data show": (SHOW, (), (300, 1000), ("new.png",)),
    "compare --plot": (COMPARE, ("run",), (300, 1000), ("new.png",)),
    "sensitivity": (SENSITIVITY, ("run",), (300, 700), ("new/plots/sensitivity.png",)),
    "anytime": (("anytime", "run", "--plot", "new.png"), ("run",), (300, 700), ("new.png",)),
}
TOO_LARGE = r"File too large|may not grow that large"
# Bytes of addresses beside what a warm process has; at a fresh start, all.
MEMORY = {
    "train": (TRAIN, ()),
    "evaluate": (("evaluate", "run"), ("run",)),
    "export": (EXPORT, ("run",)),
    "data show": (SHOW, ()),
}
MORE = (30_000_000, 400_000_000, 1_000_000_000, 1_300_000_000)
AT_START = (60_000_000, 150_000_000, 400_000_000, 1_500_000_000)
NO_MEMORY = r"memory|Cannot allocate|resources|does not load|thread"


def limits() -> list[Situation]:
    """`ulimit -f` and `ulimit -v`."""
    found = []
    for name, (command, needs, sizes, absent) in FILE_LIMITS.items():
        for size in sizes:
            go_on = [("train", "-q", "--resume", "new")] if name.startswith("train") and size >= 2500 else []
            found.append(
                Situation(
                    LIMITS, f"{name}, files of {size} bytes", command, TOO_LARGE, True, needs, after=go_on, absent=absent,
                    around=Around(file_bytes=size),
                )
            )  # fmt: skip
    for name, (command, needs) in MEMORY.items():
        for size in MORE:
            around = Around(more_memory=size)
            found.append(
                Situation(LIMITS, f"{name}, {size:,} bytes more", command, NO_MEMORY, True, needs, absent=(), around=around)
            )
    for name, command in (("plan", PLAN), ("train", TRAIN)):
        for size in AT_START:
            around = Around(more_memory=size, fresh=True)
            found.append(
                Situation(LIMITS, f"{name} begins with {size:,} bytes", command, NO_MEMORY, True, absent=(), around=around)
            )
    return found


LONG = "9" * 5000
# Command, what it needs, its numeric options.
OPTIONS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "train": (TRAIN, (), ("--devices", "--workers")),
    "evaluate": (("evaluate", "run"), ("run",), ("--batch-size", "--devices")),
    "evaluate --masks batch": (("evaluate", "run", "--masks", "batch"), ("run",), ("--beta",)),
    "export": (EXPORT, ("run",), ("--version", "--depth", "--features-depth", "--top-k")),
    "predict": (PREDICT, ("out", "digit.png"), ("--top",)),
    "finish": (FINISH, ("run",), ("--epochs", "--learning-rate", "--depth", "--clusters")),
    "prune": (
        ("prune", "-q", "run", "-w", "new", "--epochs", "0"),
        ("run",),
        ("--keep", "--multiply-adds", "--accuracy-drop", "--rounds", "--images", "--epochs", "--devices"),
    ),
    "sensitivity": (("sensitivity", "run", "--out", "new"), ("run",), ("--shares", "--examples", "--images", "--devices")),
    "anytime": (("anytime", "run", "--plot", "new.png"), ("run",), ("--batch-size",)),
}
KEYS = (
    "training.epochs", "training.batch_size", "training.optimizer.learning_rate", "training.optimizer.momentum", "seed",
    "training.optimizer.weight_decay", "data.train_examples", "data.validation", "data.augment_views", "data.image_size",
    "checkpoint_minutes", "training.accumulation", "training.clip_norm", "training.label_smoothing", "blocks.0.conv",
    "auxiliary_head.pool_to", "prune.keep",
)  # fmt: skip
VALUES = {"5,000 digits": LONG, "nan": "nan", "1e999": "1e999", "-1": "-1", "400 digits": "9" * 400}
# Numbers that mean no more than "all of it", or are numbers of days and seeds like any other.
MAY = (*((name, "--top-k") for name in ("export",)), ("predict", "--top"), ("prune", "--images"), ("sensitivity", "--examples"))


def numbers() -> list[Situation]:
    """Numbers of 5,000 digits and none at all in every numeric option and many keys."""
    found = []
    for name, (command, needs, options) in OPTIONS.items():
        for option in options:
            for what in ("5,000 digits", "nan"):
                found.append(Situation(NUMBERS, f"{name} {option} {what}", [*command, option, VALUES[what]], ".", needs=needs))
    for option, value in (("--devices", "999"), ("--devices", "1e3"), ("--devices", str(2**40))):
        found.append(Situation(NUMBERS, f"train {option} {value}", [*TRAIN, option, value], "--devices"))
    for value in (2**40, 2**63, 2**64):
        found.append(Situation(NUMBERS, f"train, batches of {value}", [*TRAIN, "-s", f"training.batch_size={value}"], "batch"))
        found.append(
            Situation(
                NUMBERS, f"evaluate, batches of {value}", ["evaluate", "run", "--batch-size", str(value)], "batch", needs=("run",)
            )
        )
    for key in KEYS:
        for what, value in VALUES.items():
            found.append(
                Situation(NUMBERS, f"plan, {key} {what}", [*PLAN, "-s", f"{key}={value}"], r"spec.yaml|--set|training|data|prune")
            )
    return found
