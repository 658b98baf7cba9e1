"""`kerasgreedy anytime`: what early exit saves, and what it costs in accuracy."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import DataAt, Json, Overwrite, quiet_tensorflow
from kerasgreedy.errors import InputError
from kerasgreedy.files import user_path


def anytime(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder.")],
    part: Annotated[str, typer.Option("--part", help="test, validation or train.")] = "test",
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", "-t", metavar="T", help="From 0 to 1, or never; repeated or with commas. Default: 13 of them."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="The picture. Default: WORKDIR/plots/anytime.png.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Default: the recipe's.")] = None,
    overwrite: Overwrite = False,
    data_at: DataAt = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy against multiply-adds when the first confident head answers."""
    thresholds = None if threshold is None else [_threshold(text) for texts in threshold for text in texts.split(",")]
    from kerasgreedy.pictures import picture_path

    picture = picture_path(user_path(workdir) / "plots" / "anytime.png" if plot is None else plot, overwrite)
    quiet_tensorflow()
    from kerasgreedy.analysis.anytime import anytime_of
    from kerasgreedy.reports.anytime_plot import plot_anytime

    result = anytime_of(workdir, part, thresholds=thresholds, batch_size=batch_size, data_at=data_at)  # type: ignore[arg-type]
    plot_anytime(result, picture, overwrite)
    if as_json:
        output.put_json({**result, "plot": str(picture)})
        return
    _put(result)
    output.put(f"picture: {picture}")


def _threshold(text: str) -> float | str:
    try:
        return text.strip() if text.strip() == "never" else float(text)
    except ValueError:
        raise InputError(f"--threshold: received '{text}'; allowed: numbers from 0 to 1, and 'never'") from None


def _put(result: dict[str, Any]) -> None:
    """A table of the thresholds, one of what early exit competes with, and the cheapest that loses nothing."""
    from kerasgreedy.reports.anytime_plot import shown
    from kerasgreedy.reports.costs import count
    from kerasgreedy.reports.tables import percent

    def costs(entry: dict[str, Any]) -> list[str]:
        return [percent(entry["top1"]), count(entry["multiply_adds"]), f"{100 * entry['multiply_adds_share']:.1f}"]

    whole = f"% of depth {result['depths'][-1]['depth']}"
    rows = [
        [shown(point["threshold"]), *costs(point), f"{point['depth']:.2f}", *(f"{100 * e['share']:.1f}" for e in point["exits"])]
        for point in result["points"]
    ]
    leaving = [f"leave at {entry['depth']}, %" for entry in result["depths"]]
    title = f"{result['spec']}: early exit on {result['examples']:,} {result['part']} images"
    output.put_table(["threshold", "top-1 %", "multiply-adds", whole, "mean depth", *leaving], rows, title)
    vote = result["ensemble"]
    named = [(f"depth {entry['depth']}", entry) for entry in result["depths"]] + [(f"ensemble of {vote['on']}", vote)]
    rows = [[name, *costs(entry), percent(entry["confidence"])] for name, entry in named]
    output.put_table(["always", "top-1 %", "multiply-adds", whole, "mean confidence %"], rows)
    output.put(_verdict(result))


def _verdict(result: dict[str, Any]) -> str:
    """The cheapest of all thresholds and shallower depths that loses nothing against the last depth."""
    from kerasgreedy.reports.anytime_plot import shown

    last = result["depths"][-1]
    ways = [(f"always depth {entry['depth']}", entry) for entry in result["depths"][:-1]]
    ways += [(f"threshold {shown(point['threshold'])}", point) for point in result["points"]]
    good = [way for way in ways if way[1]["top1"] >= last["top1"] and way[1]["multiply_adds"] < last["multiply_adds"]]
    if not good:
        return f"nothing here is as accurate as depth {last['depth']} alone at fewer multiply-adds"
    name, best = min(good, key=lambda way: way[1]["multiply_adds"])
    share = f"{100 * best['multiply_adds_share']:.1f} % of its multiply-adds"
    return f"cheapest that is as accurate as depth {last['depth']} alone: {name}, {share}"
