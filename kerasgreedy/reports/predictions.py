"""What a network says of image files, as a table and as a page of pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError, WorkdirError
from kerasgreedy.files import user_path, write_csv, writing_fault
from kerasgreedy.pictures import begins_with, refuse_foreign
from kerasgreedy.reports.page import card, cards, escape, page, table
from kerasgreedy.reports.page_file import check_page, write_page

# Pictures on a page; of more the table says the rest.
MOST_PICTURES = 200
_FIRST_COLUMN = "file,class_1,probability_1"


def check_targets(csv_file: Path | None, page_file: Path | None, overwrite: bool) -> None:
    """Refuses files that cannot be written, before anything is predicted.

    Raises:
        InputError: a wrong ending, a folder, or a file that was not made here.
    """
    for file, ending, option in ((csv_file, ".csv", "--csv"), (page_file, ".html", "--page")):
        if file is not None and user_path(file).suffix.lower() != ending:
            raise InputError(f"{option}: received '{file}'; allowed: a name that ends in {ending}")
    if csv_file is not None and not overwrite:
        refuse_foreign(user_path(csv_file), begins_with(_FIRST_COLUMN, len(_FIRST_COLUMN)))
    if page_file is not None:
        check_page(user_path(page_file), overwrite)


def write_predictions(
    predictions: Sequence[dict[str, Any]],
    faults: Sequence[dict[str, str]],
    title: str,
    csv_file: Path | None,
    page_file: Path | None,
    overwrite: bool = False,
    pictures: Mapping[str, bytes] | None = None,
) -> list[str]:
    """Writes what is asked for.

    Args:
        predictions: `file` and `classes` (`name`, `probability`, best first) of each.
        faults: `file` and `error` of what could not be read.
        pictures: see `predictions_page`.

    Returns:
        the files that were written.

    Raises:
        WorkdirError: one cannot be written.
    """
    written = []
    if csv_file is not None:
        target = user_path(csv_file)
        try:
            write_csv(target, _rows(predictions))
        except OSError as error:
            raise WorkdirError(f"{target}: {writing_fault(error) or f'cannot be written ({error})'}") from None
        written.append(str(target))
    if page_file is not None:
        target = user_path(page_file)
        write_page(target, predictions_page(predictions, faults, title, pictures or {}), overwrite)
        written.append(str(target))
    return written


def _rows(predictions: Sequence[dict[str, Any]]) -> list[list[str]]:
    most = max((len(entry["classes"]) for entry in predictions), default=1)
    header = ["file", *(f"{what}_{number}" for number in range(1, most + 1) for what in ("class", "probability"))]
    return [
        header,
        *(
            [entry["file"], *(c for e in entry["classes"] for c in (e["name"], f"{e['probability']:.6f}"))]
            for entry in predictions
        ),
    ]


def predictions_page(
    predictions: Sequence[dict[str, Any]], faults: Sequence[dict[str, str]], title: str, pictures: Mapping[str, bytes]
) -> str:
    """Each picture with its answer; those that could not be read in a table below.

    Args:
        pictures: file -> a small JPEG file, of the first `MOST_PICTURES`.
    """
    counts: dict[str, int] = {}
    for entry in predictions:
        name = entry["classes"][0]["name"]
        counts[name] = counts.get(name, 0) + 1
    body = [f"<h1>{escape(title)}</h1>", f"<p class='faint'>{len(predictions):,} images</p>"]
    body.append(table(["class", "images"], sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))))
    shown = []
    for entry in predictions[:MOST_PICTURES]:
        best, *others = entry["classes"]
        lines = [("", f"{best['name']} {100 * best['probability']:.0f} %")]
        lines += [("faint", f"{other['name']} {100 * other['probability']:.0f} %") for other in others[:1]]
        lines.append(("faint", Path(entry["file"]).name))
        shown.append(card(pictures[entry["file"]], lines, entry["file"]))
    body.append(cards(shown))
    if len(predictions) > MOST_PICTURES:
        body.append(f"<p>and {len(predictions) - MOST_PICTURES:,} more; --csv lists all of them</p>")
    if faults:
        body += ["<h2>Not read</h2>", table(["file", "why"], [[fault["file"], fault["error"]] for fault in faults], words=[1])]
    return page(title, body)
