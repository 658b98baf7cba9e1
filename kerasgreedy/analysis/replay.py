"""Long series of vectors, each of which follows from those before: after a kill the ones that were there are given again."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kerasgreedy.strict_json import as_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Takes what computes a vector, and gives the vector.
Through: TypeAlias = Callable[[Callable[[], "NDArray[Any]"]], "NDArray[Any]"]


def at_once(compute: Callable[[], "NDArray[Any]"]) -> "NDArray[Any]":
    """Nothing is kept."""
    return compute()


class Replay:
    """Vectors of one length and type, in the order in which they are asked for; a file holds one series at a time.

    Where a computation does the same with the same vectors, it goes on as if it had never been stopped.

    Args:
        path: of the file; one that holds another series is written anew.
        key: names the series.
        size, dtype: of each vector.
        first: called before anything is written.
    """

    def __init__(self, path: Path, key: str, size: int, dtype: Any, first: Callable[[], Any] = lambda: None):
        self._first = first
        self._path, self._dtype, self._asked = path, np.dtype(dtype), 0
        self._head = (as_json([key, size, self._dtype.str]) + "\n").encode()
        self._bytes = size * self._dtype.itemsize
        self._count = 0
        if path.is_file() and path.stat().st_size >= len(self._head):
            with open(path, "rb") as file:
                if file.read(len(self._head)) == self._head:
                    self._count = (path.stat().st_size - len(self._head)) // self._bytes

    def __call__(self, compute: Callable[[], "NDArray[Any]"]) -> "NDArray[Any]":
        """The next vector: (size,)."""
        start = len(self._head) + self._asked * self._bytes
        self._asked += 1
        if self._asked <= self._count:
            with open(self._path, "rb") as file:
                file.seek(start)
                return np.frombuffer(file.read(self._bytes), self._dtype)
        vector = compute()
        if self._asked == 1:
            self._first()
        with open(self._path, "r+b" if self._asked > 1 else "wb") as file:
            if self._asked == 1:
                file.write(self._head)
            file.truncate(start)  # what a kill left of a vector
            file.seek(start)
            file.write(np.ascontiguousarray(vector, self._dtype).tobytes())
        return vector
