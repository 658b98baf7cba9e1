"""What the runs of a frontier came to."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kerasgreedy.files import write_atomically
from kerasgreedy.reports.frontier_plot import plot_frontier
from kerasgreedy.reports.run_files import last_validation, read_metrics
from kerasgreedy.spec.load import load_recipe
from kerasgreedy.strict_json import as_json, read_json
from kerasgreedy.studies.frontier_range import Frontier, plain_specs, run_name
from kerasgreedy.studies.study_folder import same_run

TABLE = "frontier.json"


def write_table(study: Frontier, place: Path) -> dict[str, Any]:
    """Writes `frontier.json` and the pictures, of the runs that are done; gives its contents."""
    nets = []
    for seed in study.seeds:
        trained: list[Path] = []
        for alpha in study.alphas:
            own = place / run_name(alpha, seed)
            if (own / "net/results.json").is_file():
                nets.append({"alpha": alpha, "seed": seed, **_net(own, trained)})
            trained.append(own / "trained")
    others = []
    for seed in study.seeds:
        for name in plain_specs(study, place):
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


def _net(own: Path, before: Sequence[Path]) -> dict[str, Any]:
    trained, net = read_json(own / "trained/results.json"), read_json(own / "net/results.json")
    entry = next(entry for entry in net["phases"] if entry.get("action") == "threshold")
    whole = {f"whole_{key}": value for key, value in _figures(trained).items()}
    kept = {key: entry[key] for key in ("tau", "filters", "sides", "bodies", "emptied", "zero_share")}
    latency = {batch: {key: found[key] for key in ("ratio", "ratio_low", "ratio_high")}
               for batch, found in net["pruned"]["after"]["latency"].items() if "ratio" in found}  # fmt: skip
    return {
        "run": f"{own.name}/net",
        "epochs": net["epochs"] + _epochs(own / "trained", before),
        **_figures(net),
        **whole,
        **kept,
        "latency": latency,
        "correlations": _correlations(own / "trained"),
    }


def _correlations(run: Path) -> list[float | None]:
    """By epoch, the mean over layers of how alike their kernels are."""
    found: list[float | None] = []
    for record in read_metrics(run):
        if record["split"] == "train":
            values = [each["correlation"] for each in record.get("sparsity", {}).values() if each.get("correlation") is not None]
            found.append(fmean(values) if values else None)
    return found


def _figures(results: dict[str, Any]) -> dict[str, Any]:
    return {
        "multiply_adds": results["multiply_adds"],
        "parameters": results["parameters"],
        "top1": results["depths"][-1]["top1"],
        "validation": last_validation(results).get("top1"),
    }


def _epochs(run: Path, before: Sequence[Path]) -> int:
    """How many epochs a run has been trained for, those of the runs that it started from included.

    Args:
        before: the runs of smaller alphas, which are here wherever the study was when this one began.
    """
    total, recipe = int(read_json(run / "results.json")["epochs"]), load_recipe(run / "recipe.yaml").value
    if recipe.start_from:
        noted = Path(recipe.start_from)
        inside = [i for i, each in enumerate(before) if same_run(noted, each) and (each / "results.json").is_file()]
        total += _epochs(before[inside[0]], before[: inside[0]]) if inside else _epochs(noted, ())
    return total
