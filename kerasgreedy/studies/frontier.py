"""The frontier of architectures: one penalty's weight alpha swept, each network thresholded, accuracy against multiply-adds.

A study is a folder. For every seed and alpha it holds `alpha_<alpha>_seed_<seed>/trained`, a run with that weight that starts
from the one before (smaller alphas first), and `.../net`, what its threshold leaves, fine-tuned. Every one is an ordinary run
folder: evaluated, exported, trained on. Narrower networks, and others, trained plainly for as many epochs, stand beside them.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.files import user_path, write_atomically
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.graph.rewriting import without
from kerasgreedy.graph.tree import leaves
from kerasgreedy.plan.amounts import Ranking, selectable
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.reports.figures import write_figure
from kerasgreedy.reports.frontier_plot import draw_kernels
from kerasgreedy.runs.open_run import open_job
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import dump, load
from kerasgreedy.spec.overrides import split_overrides
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.regularizers import Regularizer
from kerasgreedy.strict_json import as_json, read_json
from kerasgreedy.studies.frontier_range import Frontier, plain_epochs, plain_specs, run_name
from kerasgreedy.studies.frontier_table import write_table
from kerasgreedy.studies.study_folder import STUDY, StudyFolder
from kerasgreedy.train.entry_points import load_network
from kerasgreedy.train.prune_run import smaller_run

STRATEGIES = ("end_to_end", "deep_supervision", "decoupled")
# Of a study, what has to be the same when it goes on.
SAME = ("warm_epochs",)


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
    job = prepare(*load(study.spec, study.recipe, study.overrides))
    runs = StudyFolder(place, say, quiet)
    with runs.opened():
        _same_study(study, runs, job)
        for seed in study.seeds:
            for name in plain_specs(study, place):
                _check_epochs(study, recipe, runs, f"{name}_seed_{seed}")
        for seed in study.seeds:
            before: Path | None = None
            for alpha in study.alphas:
                before = _one_alpha(study, recipe, runs, alpha, seed, before) or before
                write_table(study, place)
            for name, spec in plain_specs(study, place).items():
                _one_plain(study, recipe, runs, name, spec, seed)
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
    if any(changes.regularizers is not None for changes in recipe.value.phases.values()):
        raise InputError(
            "frontier: the recipe's 'phases' have regularizers, which training.regularizers, whose weight is swept, would not "
            "change; allowed: those of training alone"
        )
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


def _same_study(study: Frontier, runs: StudyFolder, job: Job) -> None:
    """Refuses a folder whose runs would not be those of the study; its alphas may be the first ones of more."""
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(study).items()}
    asked = {"kind": "frontier", **fields}
    there = runs.claim(asked, SAME, job)
    if there:
        old, new = there.get("alphas"), asked["alphas"]
        if not (isinstance(old, list) and all(isinstance(alpha, float) for alpha in old)):
            raise WorkdirError(f"{runs.path / STUDY}: damaged (alphas); put it back, or take another folder")
        if old[: len(new)] != new[: len(old)]:
            message = f"{runs.path}: holds a study of alphas {old}, each of which starts from the one before; received {new}"
            raise WorkdirError(f"{message}; allowed: larger ones behind them, or another folder")
        asked["alphas"] = max(old, new, key=len)
    runs.note(asked)


def _one_alpha(study: Frontier, recipe: Recipe, runs: StudyFolder, alpha: float, seed: int, before: Path | None) -> Path | None:
    """The two runs of an alpha; gives the first, or None where it diverged."""
    name = run_name(alpha, seed)
    trained = runs.path / name / "trained"
    sets = [*study.overrides, f"recipe.training.regularizers.0.weight={alpha!r}", f"recipe.seed={seed}", "recipe.threshold=null"]
    if before is not None:
        sets.append(f"recipe.start_from={as_json(str(before.resolve()))}")
        if study.warm_epochs:
            sets.append(f"recipe.training.epochs={study.warm_epochs}")
    trained.parent.mkdir(parents=True, exist_ok=True)
    assert recipe.threshold is not None
    settings = recipe.threshold.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if not runs.train(f"{name}/trained", study.spec, study.recipe, sets):
        return None
    runs.run(
        f"{name}/net",
        lambda place: smaller_run(trained, "threshold", settings, 0, "all", [], place, None, None, runs.quiet, None, False, None),
    )
    if not (trained.parent / "kernels.png").exists():
        _draw_kernels(trained, f"{name}: learnt kernels, each by its own scale; grey is zero")
    return trained


def _draw_kernels(run: Path, title: str) -> None:
    """A picture of the kernels of a run's convolutions, beside it."""
    network, kernels = load_network(run), {}
    for block in network.architecture.blocks:
        arrays = network.arrays(block.name)
        for key in (f"{block.name}/{node.name}" for node in leaves(block.nodes)):
            kernel = arrays.get(f"{key}/kernel")
            if kernel is not None and kernel.ndim == 4 and kernel.shape[0] > 1:
                kernels[key] = kernel
    if kernels:
        write_figure(run.parent / "kernels.png", lambda: draw_kernels(kernels, title))


def _one_plain(study: Frontier, recipe: Recipe, runs: StudyFolder, name: str, spec: str, seed: int) -> None:
    """A network from the start, without penalty."""
    own = f"{name}_seed_{seed}"
    if name.startswith("narrower_") and not Path(spec).is_file():
        first = runs.path / run_name(study.alphas[0], seed) / "trained"
        _write_narrower(first, float(name.removeprefix("narrower_")), Path(spec))
    epochs = plain_epochs(study, recipe)
    sets = [
        *(each.text for each in split_overrides(study.overrides)[1]),  # those of the spec are in what was trained
        "recipe.training.regularizers=[]",
        f"recipe.seed={seed}",
        "recipe.threshold=null",
        f"recipe.training.epochs={epochs}",
    ]
    runs.train(own, spec, study.recipe, sets)


def _check_epochs(study: Frontier, recipe: Recipe, runs: StudyFolder, name: str) -> None:
    """Refuses, before anything is trained, a plain network that has had other epochs than this sweep would give it."""
    epochs = plain_epochs(study, recipe)
    if runs.is_done(name):
        had = read_json(runs.path / name / "results.json")["epochs"]
        if had != epochs:
            message = f"{runs.path / name}: was trained for {had} epochs, and this sweep asks for {epochs}"
            raise WorkdirError(f"{message}; say --plain-epochs {had}, or take another folder")


def _write_narrower(trained: Path, share: float, path: Path) -> None:
    """The spec of a run's network with a share of the filters of each layer."""
    job = open_job(Workdir.open(trained), None)
    coupling = find_coupling(job.architecture)
    names = [block.name for block in job.architecture.blocks]
    groups = selectable(coupling, names, list(job.architecture.components), begun=True)
    spec = without(job.spec, coupling, Ranking(coupling, groups, None).share(1 - share))
    write_atomically(path, dump(spec).encode())
