"""What would run if something unpickled it."""

import io
import os
from pathlib import Path

import numpy as np


class Payload:
    """Makes a file in the current folder when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch MARKER",)


def fired(marker: Path) -> bool:
    """Whether the payload ran; takes its trace away."""
    there = marker.exists()
    marker.unlink(missing_ok=True)
    return there


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


OBJECTS = saved(np.array([Payload()] * 4, dtype=object))
