"""`kerasgreedy export` and `kerasgreedy predict`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy.cli import output
from kerasgreedy.cli.options import DataAt, Json, Overwrite, Quiet, quiet_tensorflow
from kerasgreedy.errors import InputError, tell
from kerasgreedy.export.format_names import FORMATS


def export(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="Run folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of versions; the new one becomes OUT/<version>.")],
    version: Annotated[int | None, typer.Option("--version", help="Default: the one after the newest in OUT.")] = None,
    depth: Annotated[
        str | None,
        typer.Option("--depth", metavar="N|ensemble", help="Whose prediction is served. Default: the last trained depth."),
    ] = None,
    features_depth: Annotated[
        int | None,
        typer.Option("--features-depth", help="Block whose features a call of the model gives. Default: the last trained depth."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help=f"Also write one of {', '.join(FORMATS.added)}. May be repeated."),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", help="Classes that the served prediction lists.")] = 5,
    free_size: Annotated[bool, typer.Option("--free-size", help="Take images of any size, where the layers allow it.")] = False,
    data_at: DataAt = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a trained network as a SavedModel, and in other formats, for those who do not have this package."""
    answer = _depth(depth)
    quiet_tensorflow()
    from kerasgreedy.export.export_run import Export, export_run

    settings = Export(version, answer, features_depth, top_k, free_size, tuple(formats or ()))
    done = export_run(workdir, out, settings, quiet=quiet, data_at=data_at)
    if as_json:
        output.put_json(done)
        return
    rows = [[name, _shapes(parts["inputs"]), _shapes(parts["outputs"])] for name, parts in done["signatures"].items()]
    output.put_table(["signature", "takes", "gives"], rows, f"{done['card']['name']}, version {done['version']}")
    for entry in done["formats"]:
        accuracy = f"; top-1 {100 * entry['top1_float']:.2f} -> {100 * entry['top1']:.2f} %" if "top1" in entry else ""
        output.put(f"{entry['file']}: {entry['bytes']:,} bytes{accuracy}")
    if not done["card"]["training"]["finished"]:
        output.put("the run is not finished: the last depth may be trained in part; train --resume goes on with it")
    output.put(f"differs from the network by at most {done['difference']:.1e}")
    output.put(f"written to: {done['out']}")


def _depth(text: str | None) -> Any:
    if text is None or text == "ensemble":
        return text
    if not text.isdecimal() or len(text) > 9:
        raise InputError(f"--depth: received '{text[:40]}'; allowed: a trained depth such as 3, or ensemble")
    return int(text)


def _shapes(parts: dict[str, Any], most: int = 4) -> str:
    shown = [f"{name} ({', '.join('n' if side is None else str(side) for side in shape)})" for name, (shape, _) in parts.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def predict(
    network: Annotated[
        Path, typer.Argument(metavar="NETWORK", help="A run folder, an exported version, or a folder of versions: the newest.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes shown for each image.")] = 3,
    depth: Annotated[
        str | None, typer.Option("--depth", metavar="N|ensemble", help="Of a run: whose answer. Default: the last trained depth.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE.csv", help="Also write a table, a line an image.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.html", help="Also write a page of the pictures with their answers.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Name what is on images, with the network of a run or of an export."""
    answer = _depth(depth)
    from kerasgreedy.reports.predictions import MOST_PICTURES, check_targets, write_predictions

    check_targets(csv_file, page, overwrite)
    quiet_tensorflow()
    from kerasgreedy.export.predicting import open_network, pictures_of, predict_files

    model = open_network(network, answer)
    predictions, faults = predict_files(model, images, top)
    title = f"{model.card['name']}, answer: {_answer(model.card['answer'])}"
    pictures = pictures_of(predictions, MOST_PICTURES) if page else {}
    written = write_predictions(predictions, faults, title, csv_file, page, overwrite, pictures)
    if as_json:
        place = "export" if model.exported else "workdir"
        output.put_json({place: str(model.path), "predictions": predictions, "faults": faults, "files": written})
    else:
        rows = [
            [entry["file"], *(f"{name['name']} {100 * name['probability']:.1f} %" for name in entry["classes"])]
            for entry in predictions
        ]
        if rows:
            header = ["image", *(["class", "then"] + [""] * len(rows[0]))[: len(rows[0]) - 1]]
            output.put_table(header, rows, title)
        for file in written:
            output.put(f"written: {file}")
    for fault in faults:
        tell(f"error: {fault['file']}: {fault['error']}")
    if faults:
        raise typer.Exit(InputError.exit_code)


def _answer(answer: Any) -> str:
    return "ensemble" if answer == "ensemble" else f"depth {answer}"
