"""The frontier of architectures: one penalty's weight alpha swept, each network thresholded, accuracy against multiply-adds.

A study is a folder. For every seed and alpha it holds `alpha_<alpha>_seed_<seed>/trained`, a run with that weight that starts
from the one before (smaller alphas first), and `.../net`, what its threshold leaves, fine-tuned. Every one is an ordinary run
folder: evaluated, exported, trained on. Narrower networks, and others, trained plainly for as many epochs, stand beside them.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.files import user_path, write_atomically
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.graph.rewriting import without
from kerasgreedy.plan.amounts import Ranking, selectable
from kerasgreedy.reports.frontier_plot import plot_frontier
from kerasgreedy.runs.open_run import open_job
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import load
from kerasgreedy.spec.overrides import split_overrides
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.spec.regularizers import Regularizer
from kerasgreedy.strict_json import as_json, read_json
from kerasgreedy.studies.kernels import kernel_correlations
from kerasgreedy.train.entry_points import resume_run, train_spec
from kerasgreedy.train.prune_run import smaller_run

STUDY, TABLE = "study.json", "frontier.json"


@dataclass(frozen=True)
class Frontier:
    """What is swept.

    Attributes:
        spec, recipe: as the user names them; the recipe's first regularizer has the weight that is swept.
        alphas: rising.
        seeds: each has its own sequence.
        warm_epochs: of all alphas but the first, which start from the network before; None: as the recipe says.
        narrower: shares of the filters of networks that are trained plainly, without penalty, beside the sweep.
        references: specs of others that are.
        plain_epochs: of these; None: as many as the last net of a sequence has had in all.
        overrides: `key.key=value` texts for both documents.
    """

    spec: str
    recipe: str
    alphas: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    warm_epochs: int | None = None
    narrower: tuple[float, ...] = ()
    references: tuple[str, ...] = ()
    plain_epochs: int | None = None
    overrides: tuple[str, ...] = ()


def alphas_of(text: str) -> tuple[float, ...]:
    """`1e-5:1e-3:log8`, eight of equal ratios, or `1e-5,1e-4`, rising.

    Raises:
        InputError: it is neither.
    """
    try:
        if ":" in text:
            first, last, count = text.split(":")
            number = int(count.removeprefix("log"))
            low, high = float(first), float(last)
            if not (count.startswith("log") and number >= 2 and 0 < low < high < math.inf):
                raise ValueError
            return tuple(float(f"{low * (high / low) ** (i / (number - 1)):.4g}") for i in range(number))
        found = tuple(float(part) for part in text.split(","))
        if not found or any(not 0 < value < math.inf for value in found) or list(found) != sorted(set(found)):
            raise ValueError
        return found
    except ValueError:
        message = (
            f"--alpha: received '{text}'; allowed: first:last:logN with N from 2 (1e-5:1e-3:log8), or rising numbers (1e-5,1e-4)"
        )
        raise InputError(message) from None


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
            before = _one_alpha(study, recipe, place, alpha, seed, before, say, quiet)
            _write(study, recipe, place)
        for name, spec in _plain_specs(study, place).items():
            _one_plain(study, recipe, place, name, spec, seed, say, quiet)
            _write(study, recipe, place)
    return _write(study, recipe, place)


def _checked(study: Frontier) -> Recipe:
    _, recipe = load(study.spec, study.recipe, study.overrides)
    regularizers = recipe.value.training.regularizers
    if not regularizers or not isinstance(regularizers[0], Regularizer):
        raise InputError(
            "frontier: the recipe's training.regularizers has no penalty whose weight could be alpha; name one first"
        )
    if recipe.value.threshold is None:
        raise InputError("frontier: the recipe has no 'threshold', so nothing would be removed; give one, such as {tau: 0}")
    if recipe.value.strategy not in ("end_to_end", "deep_supervision", "decoupled"):
        allowed = "end_to_end, deep_supervision, decoupled"
        message = f"frontier: received strategy '{recipe.value.strategy}'; a network is trained on as a whole; allowed: {allowed}"
        raise InputError(message)
    return recipe.value


def _same_study(study: Frontier, place: Path) -> None:
    own = parsed(study)
    if (place / STUDY).is_file():
        there = read_json(place / STUDY)
        other = next(
            (key for key in own if key not in ("alphas", "seeds", "narrower", "references") and there.get(key) != own[key]), None
        )
        if other:
            message = f"{place}: holds a study with {other} {there.get(other)}, and received {own[other]}; take another folder"
            raise WorkdirError(message)
    elif place.exists() and any(place.iterdir()):
        raise WorkdirError(
            f"{place}: is there and holds no study; allowed: a new or empty folder, or that of a study to go on with"
        )
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / STUDY, as_json(own, indent=1).encode())


def parsed(study: Frontier) -> dict[str, Any]:
    """A study as JSON gives it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(study).items()}


def run_name(alpha: float, seed: int) -> str:
    """The folder of an alpha."""
    return f"alpha_{alpha:g}_seed_{seed}"


def _one_alpha(
    study: Frontier,
    recipe: Recipe,
    place: Path,
    alpha: float,
    seed: int,
    before: Path | None,
    say: Callable[[str], None],
    quiet: bool,
) -> Path:
    own = place / run_name(alpha, seed)
    trained, net = own / "trained", own / "net"
    sets = [*study.overrides, f"recipe.training.regularizers.0.weight={alpha!r}", f"recipe.seed={seed}", "recipe.threshold=null"]
    if before is not None:
        sets.append(f"recipe.start_from={as_json(str(before.resolve()))}")
        if study.warm_epochs:
            sets.append(f"recipe.training.epochs={study.warm_epochs}")
    own.mkdir(parents=True, exist_ok=True)
    _done(trained, lambda: train_spec(study.spec, study.recipe, sets, trained, quiet=quiet), say, quiet)
    assert recipe.threshold is not None
    settings = recipe.threshold.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    _done(
        net,
        lambda: smaller_run(trained, "threshold", settings, 0, "all", [], net, None, None, quiet, None, False),
        say,
        quiet,
    )
    return trained


def epochs_seen(study: Frontier, recipe: Recipe, alpha: float) -> int:
    """How many epochs the net of an alpha has been trained for, those of the alphas before it included."""
    first, later = recipe.training.epochs, study.warm_epochs or recipe.training.epochs
    tuned = recipe.threshold.tuning(recipe.training).epochs if recipe.threshold and recipe.threshold.fine_tune else 0
    return first + study.alphas.index(alpha) * later + tuned


def _plain_specs(study: Frontier, place: Path) -> dict[str, str]:
    """Name -> spec of each network that is trained plainly."""
    found = {f"narrower_{share:g}": str(place / f"narrower_{share:g}.yaml") for share in study.narrower}
    return found | {f"reference_{Path(spec).stem}": spec for spec in study.references}


def _one_plain(
    study: Frontier, recipe: Recipe, place: Path, name: str, spec: str, seed: int, say: Callable[[str], None], quiet: bool
) -> None:
    """A network from the start, without penalty."""
    own = place / f"{name}_seed_{seed}"
    if name.startswith("narrower_") and not Path(spec).is_file():
        _write_narrower(place / run_name(study.alphas[0], seed) / "trained", float(name.removeprefix("narrower_")), Path(spec))
    sets = [
        *(each.text for each in split_overrides(study.overrides)[1]),  # those of the spec are in what was trained
        "recipe.training.regularizers=[]",
        f"recipe.seed={seed}",
        "recipe.threshold=null",
        f"recipe.training.epochs={study.plain_epochs or epochs_seen(study, recipe, study.alphas[-1])}",
    ]
    _done(own, lambda: train_spec(spec, study.recipe, sets, own, quiet=quiet), say, quiet)


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


def _write(study: Frontier, recipe: Recipe, place: Path) -> dict[str, Any]:
    nets = []
    for seed in study.seeds:
        for alpha in study.alphas:
            own = place / run_name(alpha, seed)
            if (own / "net/results.json").is_file():
                nets.append({"alpha": alpha, "seed": seed, "epochs": epochs_seen(study, recipe, alpha), **_net(own)})
    others = []
    for seed in study.seeds:
        for name in _plain_specs(study, place):
            run = place / f"{name}_seed_{seed}"
            if (run / "results.json").is_file():
                results = read_json(run / "results.json")
                told = name.removeprefix("reference_").replace("_", " ", 1) if name.startswith("narrower") else name[10:]
                others.append({"name": told, "seed": seed, "epochs": results["epochs"], "run": run.name, **_figures(results)})
    table = {"spec": study.spec, "recipe": study.recipe, "nets": nets, "plain": others}
    write_atomically(place / TABLE, as_json(table, indent=1).encode())
    if nets:
        plot_frontier(place, table)
    return table


def _net(own: Path) -> dict[str, Any]:
    trained, net = read_json(own / "trained/results.json"), read_json(own / "net/results.json")
    entry = next(entry for entry in net["phases"] if entry.get("action") == "threshold")
    whole = {f"whole_{key}": value for key, value in _figures(trained).items()}
    kept = {key: entry[key] for key in ("tau", "filters", "sides", "bodies", "emptied", "zero_share")}
    latency = {batch: {key: found[key] for key in ("ratio", "ratio_low", "ratio_high")}
               for batch, found in net["pruned"]["after"]["latency"].items() if "ratio" in found}  # fmt: skip
    correlations = kernel_correlations(own / "trained")
    return {"run": f"{own.name}/net", **_figures(net), **whole, **kept, "latency": latency, "correlations": correlations}


def _figures(results: dict[str, Any]) -> dict[str, Any]:
    looked = [entry["validation"] for entry in results["phases"] if entry.get("validation")]
    last = looked[-1] if looked else None
    validation = last.get("after", last)["top1"] if last else None
    return {
        "multiply_adds": results["multiply_adds"],
        "parameters": results["parameters"],
        "top1": results["depths"][-1]["top1"],
        "validation": validation,
    }
