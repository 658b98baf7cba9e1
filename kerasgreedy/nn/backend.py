"""Settings of Keras outside of this package that would change what layers build. Imports no Keras."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError
from kerasgreedy.files import open_regular

WANTED = {"backend": "tensorflow", "image_data_format": "channels_last", "floatx": "float32"}
NUMBERS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")  # Keras makes numbers of them as it loads


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
    written = _written(file)
    found = {key: (written[key], str(file)) for key in WANTED if key in written}
    if os.environ.get("KERAS_BACKEND"):
        found["backend"] = os.environ["KERAS_BACKEND"], "KERAS_BACKEND"
    for name in NUMBERS:
        if name in os.environ and not re.fullmatch(r"\d{1,9}", os.environ[name], re.ASCII):
            raise InputError(f"{name}: Keras does not load with it; allowed: a whole number, or nothing")
    return found


def _written(file: Path) -> dict[str, Any]:
    """Keras's own settings; what Keras would not load with is an error."""
    try:
        with open_regular(file) as content:
            written = json.load(content)
    except (FileNotFoundError, ValueError):
        return {}  # Keras takes its defaults then
    except (OSError, RecursionError) as error:
        raise InputError(f"{file}: Keras cannot read its settings ({error}); put the file right, or take it away") from None
    if not isinstance(written, dict) or not isinstance(written.get("epsilon", 0.0), float):
        raise InputError(
            f"{file}: Keras does not load with these settings; allowed: a JSON object, with a real number as epsilon"
        )
    return written
