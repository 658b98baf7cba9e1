"""A spec and a recipe to begin with, chosen from a few facts of a folder of images."""

import json
import re
from dataclasses import dataclass

from kerasgreedy.errors import printable

# Widths of the blocks from the first on; as many as halvings of the image leave a map of 4 or more.
WIDTHS = (32, 64, 96, 128, 160)
LARGEST_SIDE, SMALLEST_SIDE = 128, 16
# Steps of descent that a block gets, within bounds of epochs.
STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 1200, 6, 40


@dataclass(frozen=True)
class Starter:
    """What is chosen.

    Attributes:
        name: of the spec.
        dataset: as a recipe writes it.
        test: share of each class that is for testing; None: the folder has test images.
        side: height and width that images are brought to.
        channels: 1 or 3.
        images: training images, of which `validation` is taken.
        batch_size, epochs: of each block.
        validation: share of the training images.
        notes: what people should know, each a sentence.
    """

    name: str
    dataset: str
    test: float | None
    side: int
    channels: int
    images: int
    batch_size: int
    epochs: int
    validation: float
    notes: tuple[str, ...]

    @property
    def blocks(self) -> int:
        """How often the image can be halved until its map has fewer than 4 rows."""
        count = 1
        while count < len(WIDTHS) and self.side >> (count + 1) >= 4:
            count += 1
        return count


def starter(name: str, dataset: str, test: float | None, counts: dict[str, int], short_side: int, grey: bool) -> Starter:
    """Chooses sizes and times.

    Args:
        counts: class -> training images.
        short_side: of the median image.
    """
    images = sum(counts.values())
    side = max(SMALLEST_SIDE, min(LARGEST_SIDE, short_side if short_side < 32 else short_side // 32 * 32))
    validation = 0.2 if images < 1000 else 0.1
    batch = 16 if images < 2000 else 32 if images < 20_000 else 64
    batch = max(1, min(batch, round((1 - validation) * images) // 2))
    epochs = max(FEWEST_EPOCHS, min(MOST_EPOCHS, round(STEPS * batch / images)))
    notes = []
    fewest, most = min(counts, key=lambda each: counts[each]), max(counts, key=lambda each: counts[each])
    if counts[most] > 3 * counts[fewest]:
        notes.append(
            f"Classes differ in size: {counts[most]:,} images of {most}, {counts[fewest]:,} of {fewest}. Look at each of them: "
            f"always answering {most} would be right for {100 * counts[most] / images:.0f} %."
        )
    if counts[fewest] < 20:
        notes.append(f"Class {fewest} has {counts[fewest]:,} training images; figures of so few say little.")
    sizes = side, 1 if grey else 3, images, batch, epochs, validation
    return Starter(plain_name(name), dataset, test, *sizes, tuple(printable(" ".join(note.split())) for note in notes))


def plain_name(text: str) -> str:
    """A name that a spec may have."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:60]
    # YAML reads some names as something else.
    taken = not name or not name[0].isalpha() or name.lower() in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return f"images_{name}".rstrip("_") if taken else name


def spec_text(chosen: Starter) -> str:
    """The model spec, with comments."""
    blocks = [f"  - {{conv: {width}, downsample: max}}" for width in WIDTHS[: chosen.blocks]]
    return "\n".join(
        [
            f"# A network for {printable(' '.join(chosen.dataset.split()))}. Keys: docs/spec.md, or `kerasgreedy schema model`.",
            f"# `kerasgreedy summary {chosen.name}.yaml` counts what it costs.",
            f"name: {chosen.name}",
            *_shape(chosen),
            "block_defaults: {batch_norm: true, activation: relu}",
            "blocks:  # each is trained by itself, with a head of its own; each halves the map",
            *blocks,
            "# Of every block: one more convolution, the average over 2x2 places, a linear layer (k = 2).",
            "auxiliary_head: {hidden_layers: 1, width: 1x, pool_to: 2, batch_norm: true}",
            "",
        ]
    )


def _shape(chosen: Starter) -> list[str]:
    sides = f"[{chosen.side}, {chosen.side}, {chosen.channels}]"
    if chosen.channels == 1:
        return [f"input_shape: {sides}  # height, width, channels: the images are grey. Change it with the recipe's image_size"]
    return [f"nominal: {{input_shape: {sides}}}  # what `summary` counts for; it takes the recipe's image_size"]


def recipe_text(chosen: Starter) -> str:
    """The recipe, with comments."""
    lines = [
        f"# How {chosen.name} is trained. Keys: docs/recipe.md, or `kerasgreedy schema recipe`.",
        *(f"# {note}" for note in chosen.notes),
        f"name: {chosen.name}_recipe",
        "data:",
        f"  dataset: {json.dumps(chosen.dataset, ensure_ascii=False)}",
    ]
    if chosen.test is not None:
        lines.append(f"  test: {chosen.test}  # of each class; which images follows from their names")
    lines.append("  corrupt: skip  # leave out what cannot be read, and count it")
    flip = "true" if chosen.channels == 3 else "false"
    return "\n".join(
        [
            *lines,
            f"  image_size: {chosen.side}  # larger sees more and takes longer: by the square",
            f"  validation: {chosen.validation}  # of the training images; chooses the epoch that each block keeps",
            f"  augment: {{pad_crop: {max(1, chosen.side // 12)}, horizontal_flip: {flip}, rotate: 10, colour: 0.2}}",
            "  # Take the flip out where left and right mean something, as in writing.",
            "strategy: greedy  # block by block; end_to_end trains all at once, for comparison",
            "training:",
            f"  epochs: {chosen.epochs}  # of each block; for about {STEPS:,} steps, but {FEWEST_EPOCHS} to {MOST_EPOCHS}",
            f"  batch_size: {chosen.batch_size}",
            "  optimizer: {name: sgd, learning_rate: 0.02, momentum: 0.9, weight_decay: 5.0e-4}",
            "  schedule: {name: cosine}",
            "  label_smoothing: 0.1",
            "  keep: best",
            "seed: 0",
            "",
        ]
    )
