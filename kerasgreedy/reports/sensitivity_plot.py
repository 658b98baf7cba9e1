"""Files of a sensitivity analysis: its JSON, and the picture that is drawn from it."""

import math
from pathlib import Path
from typing import Any

from kerasgreedy.errors import WorkdirError
from kerasgreedy.files import user_path, write_atomically, writing_fault
from kerasgreedy.pictures import picture_path, refuse_foreign
from kerasgreedy.reports.figures import new_figure, write_figure
from kerasgreedy.strict_json import as_json, read_json

DATA, PICTURE = "sensitivity.json", "plots/sensitivity.png"
ALL = "all"
# Small panels in a row.
COLUMNS = 5
Curve = dict[str, Any]


def sensitivity_files(folder: str | Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Where the JSON and the picture of a folder go.

    Args:
        overwrite: they may be there and not be of this analysis. A run folder's own are replaced always.

    Raises:
        InputError: one of them is there and was not made here.
        WorkdirError: the folder is a file.
    """
    place = user_path(folder)
    if place.exists() and not place.is_dir():
        raise WorkdirError(f"{place}: is a file; allowed: a folder")
    if not overwrite:
        refuse_foreign(place / DATA, lambda file: (place / "run.json").is_file() or _is_ours(file))
    return place / DATA, picture_path(place / PICTURE, overwrite)


def _is_ours(file: Path) -> bool:
    try:
        return {"spec", "part", "baseline", "curves"} <= set(read_json(file))
    except WorkdirError:
        return False


def write_sensitivity(folder: str | Path, result: dict[str, Any], overwrite: bool = False) -> tuple[Path, Path]:
    """Writes `sensitivity.json` and `plots/sensitivity.png` into a folder; those of an earlier analysis are replaced.

    Args:
        result: of `analysis.sensitivity.sensitivity_of`.
        overwrite: see `sensitivity_files`.

    Returns:
        the two files.

    Raises:
        InputError: see `sensitivity_files`.
        Diverged: a figure is not finite; nothing is written.
        WorkdirError: they cannot be written.
    """
    data, _ = sensitivity_files(folder, overwrite)
    content = as_json(result, indent=1).encode()
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(data, content)
    except OSError as error:
        raise WorkdirError(f"{data}: {writing_fault(error) or f'cannot be written ({error})'}") from None
    return data, plot_sensitivity(data.parent, overwrite)


def plot_sensitivity(folder: Path, overwrite: bool = False) -> Path:
    """Draws `plots/sensitivity.png` from the `sensitivity.json` of a folder.

    Of one criterion: one panel with a curve for each component. Of several: a panel for `all` that compares them, and a small
    one for each component.

    Raises:
        InputError: the picture is there and was not made here.
        WorkdirError: the JSON is missing or damaged, or the picture cannot be written.
    """
    file = folder / DATA
    result = read_json(file)

    def draw() -> Any:
        try:
            return _draw(result)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkdirError(f"{file}: damaged ({error!r})") from None

    write_figure(folder / PICTURE, draw, overwrite)
    return folder / PICTURE


def _draw(result: dict[str, Any]) -> Any:
    curves: list[Curve] = result["curves"]
    criteria = list(dict.fromkeys(curve["criterion"] for curve in curves))
    figure = _one_criterion(result) if len(criteria) == 1 else _several_criteria(result, criteria)
    where = f"{result['examples']:,} {result['part']} images, head {result['depth']}, ranking {result['ranking']}, no fine-tuning"
    title = f"{result['spec']}: {criteria[0]}" if len(criteria) == 1 else str(result["spec"])
    figure.suptitle(f"{title}\n{where}", fontsize=10)
    return figure


def _one_criterion(result: dict[str, Any]) -> Any:
    from matplotlib import colormaps

    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    curves: list[Curve] = result["curves"]
    names = [curve["component"] for curve in curves if curve["component"] != ALL]
    colours = {name: colormaps["viridis"](0.92 * i / max(1, len(names) - 1)) for i, name in enumerate(names)}
    for curve in curves:
        name = curve["component"]
        style = {"color": "black", "linewidth": 2.2} if name == ALL else {"color": colours[name], "linewidth": 1.4}
        axes.plot(*_course(curve, result), marker="o", markersize=3, label=name, **style)
    _furnish(axes, result)
    axes.set_xlabel("filters removed, % of each component")
    axes.set_ylabel("top-1 accuracy, %")
    _legend(axes, math.ceil(len(curves) / 18))
    return figure


def _several_criteria(result: dict[str, Any], criteria: list[str]) -> Any:
    curves: list[Curve] = result["curves"]
    names = list(dict.fromkeys(curve["component"] for curve in curves))
    small = [name for name in names if name != ALL]
    columns = min(COLUMNS, max(2, len(small)))
    rows = math.ceil(len(small) / columns)
    tall = 2 if ALL in names else 0  # rows of the panel of `all`
    figure = new_figure(2.1 * columns + 1.9, max(4.0, 2.1 * (rows + tall)))
    grid = figure.add_gridspec(rows + tall, columns)
    panels = {ALL: figure.add_subplot(grid[:tall, :])} if tall else {}
    for i, name in enumerate(small):
        first = panels.get(small[0])
        panels[name] = figure.add_subplot(grid[tall + i // columns, i % columns], sharex=first, sharey=first)
    for curve in curves:
        index = criteria.index(curve["criterion"])
        wide = curve["component"] == ALL
        panels[curve["component"]].plot(
            *_course(curve, result), marker="o", markersize=3 if wide else 2, linewidth=1.6 if wide else 1.1,
            color=f"C{index % 10}", linestyle="--" if curve["criterion"] == "random" else "-", label=curve["criterion"],
        )  # fmt: skip
    for name, axes in panels.items():
        _furnish(axes, result)
        axes.set_title("all components together" if name == ALL else name, fontsize=9)
        axes.tick_params(labelsize=8)
    panels[ALL if tall else small[0]].set_ylabel("top-1 accuracy, %", fontsize=9)
    figure.supxlabel("filters removed, %", fontsize=9)
    _legend(panels[ALL if tall else small[:columns][-1]], 1)
    return figure


def _course(curve: Curve, result: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Shares and accuracies in percent, from the whole network on."""
    points = [{"share": 0.0, "top1": result["baseline"]["top1"]}, *curve["points"]]
    return [100 * point["share"] for point in points], [100 * point["top1"] for point in points]


def _furnish(axes: Any, result: dict[str, Any]) -> None:
    axes.axhline(100 * result["baseline"]["top1"], color="0.5", linestyle=":", linewidth=1, zorder=0)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _legend(axes: Any, columns: int) -> None:
    """To the right of a panel, where no curve can run."""
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, ncols=columns)
