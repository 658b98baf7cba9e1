"""The frontier of architectures: one penalty's weight alpha swept, each network thresholded, accuracy against multiply-adds.

A study is a folder. For every seed and alpha it holds `alpha_<alpha>_seed_<seed>/trained`, a run with that weight that starts
from the one before (smaller alphas first), and `.../net`, what its threshold leaves, fine-tuned. Every one is an ordinary run
folder: evaluated, exported, trained on. Narrower networks, and others, trained plainly for as many epochs, stand beside them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kerasgreedy.errors import Diverged, InputError, WorkdirError
from kerasgreedy.files import user_path, write_atomically
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.graph.rewriting import without
from kerasgreedy.plan.amounts import Ranking, selectable
from kerasgreedy.runs.open_run import open_job
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import load
from kerasgreedy.spec.overrides import split_overrides
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.regularizers import Regularizer
from kerasgreedy.strict_json import as_json, read_json
from kerasgreedy.studies.frontier_table import write_table
from kerasgreedy.studies.sweep import Frontier, plain_specs, planned_epochs, run_name
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.prune_run import smaller_run

STUDY = "study.json"
STRATEGIES = ("end_to_end", "deep_supervision", "decoupled")
# Of a study, what has to be the same when it goes on.
SAME = ("spec", "recipe", "overrides", "warm_epochs", "digest")


def frontier(
    study: Frontier, folder: str | Path, say: Callable[[str], None] = lambda line: None, quiet: bool = False
) -> dict[str, Any]:
    """Runs what of a study is not done, in its folder, and draws what there is after each network.

    It may be stopped anywhere, and goes on where it was.

    Args:
        say: told of each run before it begins.

    Returns:
        the contents of `frontier.json`: `nets` and `plain`, each with `alpha` or `name`, `seed`, `run`, `multiply_adds`,
        `parameters`, `top1` on test data, `validation` and `epochs` in all.

    Raises:
        KerasgreedyError: see `errors`; the folder holds another study, or a run cannot be.
    """
    place = user_path(str(folder))
    recipe = _checked(study)
    _same_study(study, place)
    for seed in study.seeds:
        before: Path | None = None
        for alpha in study.alphas:
            before = _one_alpha(study, recipe, place, alpha, seed, before, say, quiet) or before
            write_table(study, place)
        for name, spec in plain_specs(study, place).items():
            _one_plain(study, recipe, place, name, spec, seed, say, quiet)
            write_table(study, place)
    return write_table(study, place)


def _checked(study: Frontier) -> Recipe:
    _, recipe = load(study.spec, study.recipe, study.overrides)
    regularizers = recipe.value.training.regularizers
    if not regularizers or not isinstance(regularizers[0], Regularizer):
        raise InputError(
            "frontier: the recipe's training.regularizers has no penalty whose weight could be alpha; name one first"
        )
    if recipe.value.threshold is None:
        raise InputError("frontier: the recipe has no 'threshold', so nothing would be removed; give one, such as {tau: 0}")
    if recipe.value.strategy not in STRATEGIES:
        message = (
            f"received strategy '{recipe.value.strategy}'; a network is trained on as a whole; allowed: {', '.join(STRATEGIES)}"
        )
        raise InputError(f"frontier: {message}")
    stems = [Path(spec).stem for spec in study.references]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice:
        raise InputError(f"frontier: two references are called '{twice}'; rename one")
    return recipe.value


def _same_study(study: Frontier, place: Path) -> None:
    """Refuses a folder whose runs would not be those of the study; its alphas may be the first ones of more."""
    own = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(study).items()}
    own["digest"] = _digest(study)
    if (place / STUDY).is_file():
        there = read_json(place / STUDY)
        other = next((key for key in SAME if there.get(key) != own[key]), None)
        if other:
            what = "contents of spec and recipe" if other == "digest" else f"{other} {there.get(other)}"
            raise WorkdirError(f"{place}: holds a study with other {what}, received {own[other]}; take another folder")
        old, new = there["alphas"], own["alphas"]
        if old[: len(new)] != new[: len(old)]:
            message = f"{place}: holds a study of alphas {old}, each of which starts from the one before; received {new}"
            raise WorkdirError(f"{message}; allowed: larger ones behind them, or another folder")
        own["alphas"] = max(old, new, key=len)
    elif place.exists() and any(place.iterdir()):
        raise WorkdirError(
            f"{place}: is there and holds no study; allowed: a new or empty folder, or that of a study to go on with"
        )
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / STUDY, as_json(own, indent=1).encode())


def _digest(study: Frontier) -> str:
    """SHA-256 of spec and recipe as they are read."""
    documents = load(study.spec, study.recipe, study.overrides)
    return hashlib.sha256("".join(document.value.model_dump_json() for document in documents).encode()).hexdigest()


def _one_alpha(
    study: Frontier,
    recipe: Recipe,
    place: Path,
    alpha: float,
    seed: int,
    before: Path | None,
    say: Callable[[str], None],
    quiet: bool,
) -> Path | None:
    """The two runs of an alpha; gives the first, or None where it diverged."""
    own = place / run_name(alpha, seed)
    trained, net = own / "trained", own / "net"
    sets = [*study.overrides, f"recipe.training.regularizers.0.weight={alpha!r}", f"recipe.seed={seed}", "recipe.threshold=null"]
    if before is not None:
        sets.append(f"recipe.start_from={as_json(str(before.resolve()))}")
        if study.warm_epochs:
            sets.append(f"recipe.training.epochs={study.warm_epochs}")
    own.mkdir(parents=True, exist_ok=True)
    assert recipe.threshold is not None
    settings = recipe.threshold.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    try:
        _done(trained, lambda: train_spec(study.spec, study.recipe, sets, trained, quiet=quiet), say, quiet)
        _done(
            net,
            lambda: smaller_run(trained, "threshold", settings, 0, "all", [], net, None, None, quiet, None, False, None),
            say,
            quiet,
        )
    except Diverged as error:
        say(f"{own.name} diverged, and is left out: {error}")
        return trained if (trained / "results.json").is_file() else None
    return trained


def _one_plain(
    study: Frontier, recipe: Recipe, place: Path, name: str, spec: str, seed: int, say: Callable[[str], None], quiet: bool
) -> None:
    """A network from the start, without penalty."""
    own = place / f"{name}_seed_{seed}"
    if name.startswith("narrower_") and not Path(spec).is_file():
        _write_narrower(place / run_name(study.alphas[0], seed) / "trained", float(name.removeprefix("narrower_")), Path(spec))
    epochs = study.plain_epochs or planned_epochs(study, recipe)
    if (own / "results.json").is_file():
        had = read_json(own / "results.json")["epochs"]
        if had != epochs:
            message = f"{own}: was trained for {had} epochs, and this sweep asks for {epochs}; say --plain-epochs {had}, or take "
            raise WorkdirError(message + "another folder")
    sets = [
        *(each.text for each in split_overrides(study.overrides)[1]),  # those of the spec are in what was trained
        "recipe.training.regularizers=[]",
        f"recipe.seed={seed}",
        "recipe.threshold=null",
        f"recipe.training.epochs={epochs}",
    ]
    try:
        _done(own, lambda: train_spec(spec, study.recipe, sets, own, quiet=quiet), say, quiet)
    except Diverged as error:
        say(f"{own.name} diverged, and is left out: {error}")


def _write_narrower(trained: Path, share: float, path: Path) -> None:
    """The spec of a run's network with a share of the filters of each layer."""
    job = open_job(Workdir.open(trained), None)
    coupling = find_coupling(job.architecture)
    names = [block.name for block in job.architecture.blocks]
    groups = selectable(coupling, names, list(job.architecture.components), begun=True)
    spec = without(job.spec, coupling, Ranking(coupling, groups, None).share(1 - share))
    write_atomically(path, as_json(spec.model_dump(mode="json", exclude_unset=True, exclude_none=True)).encode())


def _done(run: Path, start: Callable[[], Any], say: Callable[[str], None], quiet: bool) -> None:
    """Begins a run, or goes on with it, unless it is done."""
    if (run / "results.json").is_file():
        return
    say(f"{run.parent.name}/{run.name}" if run.name in ("trained", "net") else run.name)
    if (run / "run.json").is_file():
        resume_run(run, quiet=quiet)
    else:
        start()
