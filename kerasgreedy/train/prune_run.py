"""Prunes the network of a finished run, in a new run of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.errors import InputError
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.stages import phases_of
from kerasgreedy.runs.open_run import open_job
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.sparsity import from_tfmot
from kerasgreedy.train.entry_points import Run, train_spec

# Fine-tuning starts at this share of the rate that the network was trained with.
RATE = 0.1


def prune_run(
    workdir: str | Path,
    keep: float | None = None,
    multiply_adds: float | None = None,
    accuracy_drop: float | None = None,
    schedule: Any = None,
    zeros: bool = False,
    rounds: int = 1,
    importance: str = "taylor_activation",
    ranking: str = "layer",
    components: Sequence[str] | None = None,
    images: int | None = None,
    heads: str | None = None,
    epochs: int = 3,
    fine_tune: str = "all",
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    quiet: bool = False,
    devices: str | None = None,
    check_data: bool = False,
    data_at: str | None = None,
) -> Run:
    """Removes filters of a finished run's network and fine-tunes what is left, in a new run folder; the old one stays as it is.

    Args:
        workdir: the finished run. Its recipe says the data, the batch size and the optimiser.
        keep, multiply_adds, accuracy_drop, schedule, zeros: how much, exactly one of them; see the recipe's `prune`. A schedule
            may be one of TFMOT's (`tfmot.sparsity.keras.PolynomialDecay`, `ConstantSparsity`), its steps being rounds.
        rounds, importance, ranking, components, images: as there.
        heads: `last` or `all`; default: `all` where the run trained several.
        epochs: of fine-tuning after each round, along a cosine from a tenth of the run's learning rate; 0: none.
        fine_tune: what it trains, `all` or `head`.
        overrides: `key.key=value` texts for the new recipe.
        out: the new run folder; default: the old one's name and `-pruned`.
        data: own images, where the run was trained on such.
        strategy, devices: see `train_spec`.
        check_data, data_at: see `resume_run`.

    Raises:
        KerasgreedyError: see `errors`; an amount that cannot be reached says what can.
    """
    settings = {
        "keep": keep,
        "multiply_adds": multiply_adds,
        "accuracy_drop": accuracy_drop,
        "schedule": from_tfmot(schedule).model_dump() if schedule is not None else None,
        "zeros": zeros or None,
        "rounds": rounds,
        "importance": importance,
        "ranking": ranking,
        "components": list(components) if components else None,
        "images": images,
        "heads": heads,
    }
    return smaller_run(
        workdir, "prune", settings, epochs, fine_tune, overrides, out, data, strategy, quiet, devices, check_data, data_at
    )


def threshold_run(
    workdir: str | Path,
    tau: float | None = None,
    accuracy_drop: float | None = None,
    multiply_adds: float | None = None,
    of: Sequence[str] | str | None = None,
    groups: str | None = None,
    norm: str | None = None,
    on: str | None = None,
    round_to: int = 1,
    sizes: str | None = None,
    sums: str = "placed",
    epochs: int = 3,
    fine_tune: str = "all",
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    data: ImageArrays | None = None,
    strategy: tf.distribute.Strategy | None = None,
    quiet: bool = False,
    devices: str | None = None,
    check_data: bool = False,
    data_at: str | None = None,
) -> Run:
    """Removes what a structured penalty has made small in a finished run's network, in a new run folder; see `prune_run`.

    Args:
        tau, accuracy_drop, multiply_adds: how much, exactly one of them; see the recipe's `threshold`.
        of, groups, norm, on, round_to, sizes, sums: as there.
        epochs, fine_tune, overrides, out, data, strategy, quiet, devices, check_data, data_at: see `prune_run`. Fine-tuning
            has no regularizers.

    Raises:
        KerasgreedyError: see `errors`; an amount that cannot be reached says what can.
    """
    which = of if of is None or isinstance(of, str) else list(of)
    settings = {"tau": tau, "accuracy_drop": accuracy_drop, "multiply_adds": multiply_adds, "of": which, "groups": groups}
    settings |= {"norm": norm, "on": on, "round_to": round_to, "sizes": sizes, "sums": sums}
    return smaller_run(
        workdir, "threshold", settings, epochs, fine_tune, overrides, out, data, strategy, quiet, devices, check_data, data_at
    )


def smaller_run(
    workdir: str | Path,
    section: str,
    settings: dict[str, Any],
    epochs: int,
    fine_tune: str,
    overrides: Sequence[str],
    out: str | Path | None,
    data: ImageArrays | None,
    strategy: tf.distribute.Strategy | None,
    quiet: bool,
    devices: str | None,
    check_data: bool,
    data_at: str | None,
) -> Run:
    """A run of strategy `compress` on another's network, with one removal; see `prune_run`.

    Args:
        section: of the recipe that says what is removed, by these settings.
    """
    if epochs < 0:
        raise InputError(f"epochs: received {epochs}; allowed: 0 or more")
    folder = Workdir.open(workdir, data_at)
    here = folder.path.resolve()
    job = open_job(folder, data, check_data)
    if section == "prune" and settings["heads"] is None:
        settings["heads"] = "all" if len(job.trained_depths()) > 1 else "last"
    training = job.recipe.training
    if epochs:
        optimizer = training.optimizer.model_copy(update={"learning_rate": RATE * training.optimizer.learning_rate})
        fine = {"trains": fine_tune, "epochs": epochs, "optimizer": optimizer.model_dump(), "schedule": {"name": "cosine"}}
        settings["fine_tune"] = fine
    # What another strategy alone may say is taken back.
    texts: dict[str, Any] = {"strategy": "compress", "start_from": str(here), "dsd": None, "replace_head": None,
             "training.init": "fresh", "cache.store": "auto", "prefix_precision": None, "phases": {}}  # fmt: skip
    texts["data"] = job.recipe.data.model_dump(mode="json", exclude_none=True)  # as the run went on with it
    texts["threshold" if section == "prune" else "prune"] = None
    if section == "threshold":
        texts["training.regularizers"] = _trained_by(job)  # phases of their own are taken back, and with them theirs
    for key, value in settings.items():
        texts[f"{section}.{key}"] = value
    spec = folder.network_spec
    base = [
        f"{section}={{}}",
        *(f"{key}={_yaml(value)}" for key, value in texts.items() if value is not None or not key.startswith(f"{section}.")),
    ]
    place = out or here.with_name(f"{here.name}-{'pruned' if section == 'prune' else 'thresholded'}")
    return train_spec(spec, folder.path / "recipe.yaml", [*base, *overrides], place, data, strategy, quiet, devices)


def _trained_by(job: Job) -> list[dict[str, Any]]:
    """The regularizers of a run's phases; those that differ in their weight alone once."""
    found = {}
    for phase in phases_of(job.phases):
        for each in phase.training.regularizers:
            found[each.model_copy(update={"weight": 1.0}).model_dump_json()] = each.model_dump(mode="json")
    return list(found.values())


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1_000_000).removesuffix("...\n").strip()
