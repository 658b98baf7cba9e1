"""Figures that are not finite, wherever they can arise."""

from .situations import TRAIN, Situation, finite, said_json

GROUP = "a: figures that are not finite"
RATE = "training.optimizer.learning_rate"
SAYS = r"inf|nan|finite|diverged"


# Which settings carry the rate, and what else they need.
PLACES = {
    "first phase": ((RATE,), ()),
    "first phase, no validation data": ((RATE,), ("data.validation=0",)),
    "end to end": ((RATE,), ("strategy=end_to_end",)),
    "deep supervision": ((RATE,), ("strategy=deep_supervision",)),
    "decoupled": ((RATE,), ("strategy=decoupled",)),
    "fine-tuning after pruning": (("prune.fine_tune.optimizer.learning_rate",), ("prune.keep=0.5", "prune.fine_tune.epochs=1")),
    "a new last head": (
        ("replace_head.training.optimizer.learning_rate",),
        ("replace_head.head.pool_to=1", "replace_head.training.epochs=1"),
    ),
}
EVALUATED = ("a new last head", "fine-tuning after pruning")  # before it goes on; elsewhere nothing has been trained yet
RATES = ("1e20", "1e30", "1e36")

# What is asked of a network whose weights are huge.
ASKED = {
    "evaluate": ("evaluate", "huge", "--json"),
    "evaluate, validation": ("evaluate", "huge", "--part", "validation", "--json"),
    "evaluate, train": ("evaluate", "huge", "--part", "train", "--json"),
    "export": ("export", "-q", "huge", "new"),
    "export, keras": ("export", "-q", "huge", "new", "-f", "keras"),
    "export, tflite": ("export", "-q", "huge", "new", "-f", "tflite"),
    "sensitivity": ("sensitivity", "huge", "--out", "new", "--shares", "0.5", "--json"),
    "sensitivity by magnitude": (
        "sensitivity",
        "huge",
        "--out",
        "new",
        "--shares",
        "0.5",
        "--importance",
        "magnitude_l2",
        "--json",
    ),
    "anytime": ("anytime", "huge", "--plot", "new.png", "--json"),
    **{
        f"prune by {name}": ("prune", "-q", "huge", "-w", "new", "--keep", "2", "--epochs", "0", "--importance", name, "--json")
        for name in ("taylor_activation", "taylor_weight", "magnitude_l2", "mean_activation")
    },
    "cluster": ("finish", "-q", "huge", "new", "-m", "cluster", "--epochs", "1", "--json"),
    "quantize": ("finish", "-q", "huge", "new", "-m", "quantize", "--epochs", "1", "--json"),
}


def figures() -> list[Situation]:
    """Rates at which training overflows, and networks that do."""
    found = []
    for place, (keys, more) in PLACES.items():
        for rate in RATES:
            sets = [f"{key}={rate}" for key in keys]
            go_on = ["train", "-q", "--resume", "new", *(part for key in keys for part in ("-s", f"{key}=0.05"))]
            found.append(
                Situation(
                    GROUP,
                    f"{rate}, {place}",
                    [*TRAIN, *(part for each in (*more, *sets) for part in ("-s", each))],
                    SAYS,
                    either=True,
                    check=finite("new/results.json"),
                    after=[("evaluate", "new", "--json"), go_on] if place in EVALUATED else [go_on],
                    absent=("new/results.json", "new/model.keras"),
                )
            )
    for what, command in ASKED.items():
        found.append(
            Situation(
                GROUP,
                f"huge weights, {what}",
                command,
                SAYS,
                either=True,
                needs=("huge",),
                check=said_json if "--json" in command else None,
                # A pruned run is a run: what it began with stays, as with training.
                absent=("new/results.json", "new/model.keras") if command[0] == "prune" else ("new",),
            )
        )
    for method in ("cluster", "quantize"):
        for rate in RATES[:2]:
            command = ("finish", "-q", "run", "new", "-m", method, "--epochs", "1", "--learning-rate", rate, "--json")
            found.append(Situation(GROUP, f"{method} at {rate}", command, SAYS, either=True, needs=("run",), check=said_json))
    return found
