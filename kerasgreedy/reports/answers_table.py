"""Classes, and what they are taken for, as rows."""

from collections.abc import Sequence
from typing import Any


def class_rows(classes: Sequence[dict[str, Any]], confusion: Sequence[Sequence[int]]) -> list[list[Any]]:
    """A header and a row for each class.

    Args:
        classes: `name`, `images`, `right` of each.
        confusion: images by label and answer.

    Returns:
        class, images, how many are right, their share in percent, how many others are taken for it, and what it is taken for most
        often when it is taken for something else, with the number.
    """
    rows: list[list[Any]] = [["class", "images", "right", "right, %", "taken for it", "most often taken for"]]
    for index, entry in enumerate(classes):
        others = [(count, -answer) for answer, count in enumerate(confusion[index]) if answer != index and count]
        most, answer = max(others, default=(0, 0))
        share = f"{100 * entry['right'] / entry['images']:.1f}" if entry["images"] else ""
        taken = sum(row[index] for label, row in enumerate(confusion) if label != index)
        rows.append(
            [entry["name"], entry["images"], entry["right"], share, taken, f"{classes[-answer]['name']} ({most})" if most else ""]
        )
    return rows
