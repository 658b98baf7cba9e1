"""Classes, and what they are taken for, as rows."""

from typing import Any

HEADER = ["class", "images", "right", "right, %", "taken for it", "most often taken for"]


def class_rows(details: dict[str, Any]) -> list[list[Any]]:
    """A header and a row for each class.

    Args:
        details: of `train.details`.

    Returns:
        class, images, how many are right, their share in percent; and, where all pairs are known, how many others are taken for
        it, and what it is taken for most often when it is taken for something else, with the number.
    """
    classes, confusion = details["classes"], details.get("confusion")
    rows: list[list[Any]] = [HEADER if confusion else HEADER[:4]]
    for index, entry in enumerate(classes):
        share = f"{100 * entry['right'] / entry['images']:.1f}" if entry["images"] else ""
        row = [entry["name"], entry["images"], entry["right"], share]
        if confusion:
            others = [(count, -answer) for answer, count in enumerate(confusion[index]) if answer != index and count]
            most, answer = max(others, default=(0, 0))
            row.append(sum(counts[index] for label, counts in enumerate(confusion) if label != index))
            row.append(f"{classes[-answer]['name']} ({most})" if most else "")
        rows.append(row)
    return rows
