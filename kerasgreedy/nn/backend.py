"""Settings of Keras outside of this package that would change what layers build. Imports no Keras."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError

WANTED = {"backend": "tensorflow", "image_data_format": "channels_last", "floatx": "float32"}


def check_backend() -> None:
    """Refuses settings under which the same spec would become another network, before Keras is imported or anything is made.

    Raises:
        InputError: names the setting, where it stands, and what is needed.
    """
    for key, (value, place) in _settings().items():
        if value != WANTED[key]:
            raise InputError(f"{place}: Keras's {key} is {value!r}; kerasgreedy needs {WANTED[key]!r}")
    keras = sys.modules.get("keras")
    policy = keras.config.dtype_policy().name if keras and hasattr(keras, "config") else "float32"
    if policy != "float32":
        raise InputError(
            f"keras.config.dtype_policy() is '{policy}'; kerasgreedy needs 'float32' (a recipe's precision says more)"
        )


def _settings() -> dict[str, tuple[Any, str]]:
    """Setting -> its value, and where that comes from."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        config = keras.config
        now = {"backend": config.backend(), "image_data_format": config.image_data_format(), "floatx": config.floatx()}
        return {key: (value, "keras.config") for key, value in now.items()}
    file = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        written = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        written = {}  # Keras takes its defaults then
    found = {key: (written[key], str(file)) for key in WANTED if isinstance(written, dict) and key in written}
    if os.environ.get("KERAS_BACKEND"):
        found["backend"] = os.environ["KERAS_BACKEND"], "KERAS_BACKEND"
    return found
