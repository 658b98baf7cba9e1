"""Events inside an export, and when a folder that is whole gets its name. The moments are reported to `reached`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def place_in_exports(reached: Callable[[str], None]) -> None:
    """Wraps what writes an export."""
    import tensorflow as tf
    from tensorflow.python.lib.io import file_io

    from kerasgreedy.export import export_run, verify

    write = file_io.atomic_write_string_to_file

    def graph(path: str, content: Any, *more: Any, **others: Any) -> None:
        """The variables are there; half of the graph is."""
        Path(path).write_bytes(content[: len(content) // 2])
        reached("export/half")
        Path(path).unlink()
        write(path, content, *more, **others)

    file_io.atomic_write_string_to_file = graph
    text = Path.write_text

    def write_text(self: Path, content: str, *more: Any, **others: Any) -> int:
        if self.name == "export.json":
            text(self, content[: len(content) // 2])
            reached("export/half")
        return text(self, content, *more, **others)

    Path.write_text = write_text  # type: ignore[method-assign]
    record = tf.io.TFRecordWriter.write

    def recorded(self: Any, content: bytes) -> None:
        record(self, content)
        reached("export/half")

    tf.io.TFRecordWriter.write = recorded
    saved = tf.saved_model.save

    def save(*arguments: Any, **more: Any) -> None:
        reached("export/before")
        saved(*arguments, **more)

    tf.saved_model.save = save
    verified = verify.verify_saved_model

    def checked(*arguments: Any) -> float:
        reached("export/half")
        return verified(*arguments)

    export_run.verify.verify_saved_model = checked
    rename = Path.rename

    def renamed(self: Path, target: Any) -> Path:
        whole = self.name == "new" and self.parent.name.startswith(".kerasgreedy-")
        kind = "run folder" if (self / "run.json").exists() else "export"
        if whole:
            reached(f"{kind}/unnamed")
        result = rename(self, target)
        if whole:
            reached(f"{kind}/after")
        return result

    Path.rename = renamed  # type: ignore[method-assign]
