"""Plug-ins that the user names: Python modules that add to doors when they are imported. Imports no TensorFlow."""

import importlib
import importlib.util
import sys
from pathlib import Path

from kerasgreedy.errors import InputError, printable


def load_plugin(named: str) -> None:
    """Imports a plug-in.

    Args:
        named: a module that Python finds, `my_package.plugin`, or a file, `./plugin.py`.

    Raises:
        InputError: there is none, or importing it fails.
    """
    try:
        if named.endswith(".py"):
            _load_file(Path(named))
        else:
            importlib.import_module(named)
    except Exception as error:  # whatever the plug-in raises is its fault, and is said as that
        raise InputError(f"--plugin {printable(named)}: {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> None:
    name = path.stem
    if name in sys.modules:
        if getattr(sys.modules[name], "__file__", None) == str(path.resolve()):
            return  # named twice
        raise InputError(f"a module of the name '{name}' is there already; rename the file")
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError("no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that doors find it again by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
