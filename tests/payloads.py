"""What would run if something unpickled it."""

import io
import os
from pathlib import Path

import numpy as np
import pytest


class Payload:
    """Makes a file in the current folder when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch MARKER",)


@pytest.fixture
def nothing_ran(tmp_path, place):
    """Every payload of a test would make this file."""
    yield
    assert not (tmp_path / "MARKER").exists()


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
