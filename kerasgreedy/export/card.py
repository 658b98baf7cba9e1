"""The model card: what an exported network is, for people and programs that never see this package."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgreedy.data.named import NAMED
from kerasgreedy.errors import InputError
from kerasgreedy.plan.preparation import Job
from kerasgreedy.runs.exported import CARD
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import dump
from kerasgreedy.strict_json import as_json

CARD_TEXT, NAMES = "model_card.md", "class_names.txt"
ARRAYS = "arrays"


@dataclass(frozen=True)
class Facts:
    """What the card says beyond the run folder.

    Attributes:
        job: with the network's last spec.
        depths: trained ones.
        answer, features_depth: as exported.
        preprocessing: of encoded images, in words.
        normalization: (mean, deviation) by channel of 0..255.
        image_shape: of one image; None where any number will do.
    """

    job: Job
    depths: Sequence[int]
    answer: int | str
    features_depth: int
    preprocessing: str
    normalization: tuple[list[float], list[float]] | None
    image_shape: Sequence[int | None]


def model_card(folder: Workdir, facts: Facts) -> dict[str, Any]:
    """The card as data."""
    job, run, results = facts.job, folder.facts(), folder.results()
    scores = {entry["depth"]: entry for entry in results["depths"]} if results else {}
    return {
        "name": job.spec.name,
        "task": "image classification",
        "made_by": f"kerasgreedy {run['versions']['kerasgreedy']}, TensorFlow {run['versions']['tensorflow']}",
        "exported": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "input": {
            "images": {"shape": list(facts.image_shape), "type": "uint8", "range": [0, 255]},
            "image_bytes": {"files": ["JPEG", "PNG", "BMP"], "preprocessing": facts.preprocessing},
            "normalization": facts.normalization and dict(zip(("mean", "deviation"), facts.normalization, strict=True)),
        },
        "answer": facts.answer,
        "features_depth": facts.features_depth,
        "class_names": list(job.data.class_names),
        "upright": job.data.known.upright,
        "data": _data(job, run),
        "training": {
            "recipe": job.recipe.name,
            "strategy": job.recipe.strategy,
            "seed": job.recipe.seed,
            "started": run.get("started"),
            "git": run.get("git"),
            "finished": results is not None,
        },
        "depths": [{"depth": depth, **_costs(job, [depth]), **_scores(scores.get(depth))} for depth in facts.depths],
        "ensemble": {**_costs(job, facts.depths), **_scores(results and results["ensemble"])},
        "test_images": results and results["examples"],
        "spec": "spec.yaml",
    }


def _data(job: Job, run: Mapping[str, Any]) -> dict[str, Any]:
    name = ARRAYS if run.get("arrays") else job.data.dataset
    known = NAMED.get(name)
    kind, _, place = name.partition(":")
    shown = f"{kind}:{Path(place).name}" if kind in ("folder", "npz") else name
    return {
        "dataset": shown,
        "licence": known.licence if known else "not known",
        "training_images": job.train_images,
        "validation_images": job.validation_images,
        "classes": job.data.classes,
    }


def _costs(job: Job, depths: Sequence[int]) -> dict[str, int]:
    """Of the blocks up to the last of these depths, and their heads."""
    arch = job.architecture
    parts = [*arch.blocks[: max(depths)], *(arch.heads[depth - 1] for depth in depths)]
    return {"parameters": sum(part.parameters for part in parts), "multiply_adds": sum(part.multiply_adds for part in parts)}


def _scores(entry: Mapping[str, Any] | None) -> dict[str, float]:
    """On test data, if the run has been evaluated."""
    return {key: entry[key] for key in ("top1", "top5", "loss")} if entry else {}


def write_assets(folder: Path, card: Mapping[str, Any], job: Job) -> list[Path]:
    """Writes card, class names, spec and recipe into a folder.

    Raises:
        InputError: a class name has more than one line, or bytes that are no text.
    """
    names = job.data.class_names
    odd = next((name for name in names if not _is_line(name)), None)
    if odd is not None:
        raise InputError(f"class name {odd!r} is not one line of text; rename the class, and train again with its new name")
    # Paths of the machine that trained are nobody's business.
    data = job.recipe.data.model_copy(update={"dataset": card["data"]["dataset"], "data_dir": None})
    start = job.recipe.start_from
    recipe = job.recipe.model_copy(update={"data": data, "start_from": start and Path(start).name})
    contents = {
        CARD: as_json(card, indent=1),
        CARD_TEXT: card_text(card),
        NAMES: "".join(f"{name}\n" for name in names),
        "spec.yaml": dump(job.spec),
        "recipe.yaml": dump(recipe),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def _is_line(name: str) -> bool:
    """Whether a name can stand in a list of names; that of a folder may hold bytes that are no UTF-8."""
    return len(name.splitlines()) == 1 and not any("\ud800" <= letter <= "\udfff" for letter in name)


def card_text(card: Mapping[str, Any]) -> str:
    """The card for people, in Markdown."""
    data, training = card["data"], card["training"]
    names = card["class_names"]
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")
    shape = " x ".join("any" if side is None else str(side) for side in card["input"]["images"]["shape"])
    files = card["input"]["image_bytes"]["preprocessing"]
    answer = "the vote of all heads" if card["answer"] == "ensemble" else f"the head at depth {card['answer']}"
    lines = [
        f"# {card['name']}",
        "",
        f"Image classification, {data['classes']} classes: {shown}. Made by {card['made_by']}, exported {card['exported']}.",
        "",
        f"- **Input**: images {shape} uint8 of 0..255, or JPEG, PNG and BMP files ({files}). Normalisation is inside.",
        f"- **Answer** of `serve`: {answer}. Called as a function it gives the features after block {card['features_depth']}.",
        f"- **Data**: {data['dataset']}, {data['training_images']:,} training images. Licence of the data: {data['licence']}.",
        f"- **Training**: recipe {training['recipe']}, strategy {training['strategy']}, seed {training['seed']}"
        + ("." if training["finished"] else "; NOT finished when it was exported."),
        "",
        "| depth | parameters | multiply-adds | top-1 | top-5 | loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(row) for row in (*card["depths"], {"depth": "ensemble", **card["ensemble"]})]
    if card["test_images"]:
        lines += ["", f"Measured on {card['test_images']:,} test images. Costs are of one image and of that depth alone."]
    lines += ["", "It knows these classes only, and gives one of them for any image. Probabilities are not calibrated."]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    forms = {"parameters": "{:,}", "multiply_adds": "{:,}", "top1": "{:.2%}", "top5": "{:.2%}", "loss": "{:.4f}"}
    cells = [str(row["depth"]), *(form.format(row[key]) if key in row else "" for key, form in forms.items())]
    return f"| {' | '.join(cells)} |"
