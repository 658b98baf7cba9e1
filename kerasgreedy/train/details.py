"""What a network answers on a part of the data, class by class, with pictures: as JSON, as tables and as figures."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.data.thumbnails import thumbnail
from kerasgreedy.errors import WorkdirError, printable
from kerasgreedy.files import write_atomically, write_csv
from kerasgreedy.network.answers import Answer, answers_of
from kerasgreedy.network.build import Network
from kerasgreedy.reports.answers_table import class_rows
from kerasgreedy.reports.figures import write_figure
from kerasgreedy.reports.pictures_plot import draw_confusion, draw_sheet
from kerasgreedy.reports.run_files import DETAILS
from kerasgreedy.strict_json import as_json

MISTAKES, SAMPLES = 24, 12
FILES = (DETAILS, "classes.csv", "confusion.csv", "confusion.png", "mistakes.png")
# Of more classes than these the table of all pairs is left out: it would be larger than all else that a run says of itself.
MOST_CLASSES = 200


def details_of(
    network: Network,
    pipeline: Pipeline,
    part: Part,
    names: Sequence[str],
    batch_size: int,
) -> dict[str, Any]:
    """What the deepest trained head answers.

    Returns:
        `depth`, `part`, `examples`, `accuracy`; `classes`: for each `name`, `images`, `right`; `confused`: the 20 most frequent
        pairs (`label`, `answer`, `images`); `confusion`: images by label and answer, of at most 200 classes; `mistakes` (the
        surest, at most 24) and `samples` (the first images, at most 12): for each `place` in the part, `label`, `answer`,
        `probability`, and `picture`, a JPEG file in base64 of at most 96 pixels a side.
    """
    depth = network.facts.depths[-1]
    answers = answers_of(network, depth, pipeline.evaluation(part, batch_size), MISTAKES, SAMPLES)
    examples = int(answers.images.sum())
    # Of equally frequent ones the first by label and answer.
    pairs = sorted(answers.wrong.items(), key=lambda pair: (-pair[1], pair[0]))[:20]

    def entry(answer: Answer) -> dict[str, Any]:
        facts = {"place": answer.place, "label": names[answer.label], "answer": names[answer.answer]}
        shades = (answer.image * pipeline.deviation + pipeline.mean).round().clip(0, 255).astype(np.uint8)
        return {**facts, "probability": answer.probability, "picture": base64.b64encode(thumbnail(shades)).decode()}

    return {
        "depth": depth,
        "part": part,
        "examples": examples,
        "accuracy": int(answers.right.sum()) / examples,
        "classes": [
            {"name": name, "images": images, "right": right}
            for name, images, right in zip(names, answers.images.tolist(), answers.right.tolist(), strict=True)
        ],
        "confused": [{"label": names[i], "answer": names[j], "images": images} for (i, j), images in pairs],
        **({"confusion": answers.confusion.tolist()} if len(names) <= MOST_CLASSES else {}),
        "mistakes": [entry(answer) for answer in answers.mistakes],
        "samples": [entry(answer) for answer in answers.first],
    }


def free_for_details(folder: Path) -> Path:
    """A folder for details.

    Raises:
        WorkdirError: it is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise WorkdirError(f"{folder}: is no folder; give another --out")
    held = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    if held and (DETAILS not in held or held - set(FILES)):
        raise WorkdirError(f"{folder}: holds something else than details; give another --out")
    return folder


def keep_details(details: dict[str, Any], target: Path) -> None:
    """Writes `details.json`."""
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / DETAILS, as_json(details).encode())


def draw_details(details: dict[str, Any], name: str, target: Path) -> None:
    """Writes the tables and figures beside `details.json`.

    Args:
        name: of the run, in titles.
    """
    names = [entry["name"] for entry in details["classes"]]
    counts = details.get("confusion")
    shown = list(map(printable, names))
    write_csv(target / "classes.csv", class_rows(details))
    if counts is not None:
        write_csv(target / "confusion.csv", [["label", *names], *([each, *row] for each, row in zip(names, counts, strict=True))])
        facts = {**details, "classes": shown, "name": printable(name)}
        write_figure(target / "confusion.png", lambda: draw_confusion(facts), overwrite=True)
    (target / "mistakes.png").unlink(missing_ok=True)  # there may be none now
    mistakes = details["mistakes"]
    if mistakes:
        wrong = details["examples"] - sum(entry["right"] for entry in details["classes"])
        texts = [printable(m["answer"]) + f" {100 * m['probability']:.0f} %\nis " + printable(m["label"]) for m in mistakes]
        title = f"{printable(name)}: the surest of {wrong:,} mistakes ({details['examples']:,} {details['part']} images)"
        pictures = np.stack([_shades(m["picture"]) for m in mistakes])
        write_figure(target / "mistakes.png", lambda: draw_sheet(pictures, texts, title), overwrite=True)


def _shades(picture: str) -> "np.ndarray[Any, Any]":
    """(height, width, 1 or 3) from 0 to 1."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        shades = np.asarray(image) / 255
    return shades[..., None] if shades.ndim == 2 else shades
