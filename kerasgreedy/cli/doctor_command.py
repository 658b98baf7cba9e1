"""`kerasgreedy doctor`: what this machine has, and what is missing."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasgreedy import __version__
from kerasgreedy.cli import output
from kerasgreedy.cli.options import Json, quiet_tensorflow

PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "pillow", "scikit-learn", "matplotlib")
# What is needed for something alone, and how it is had.
EXTRAS = {
    "tensorflow-model-optimization": ("finish: int8 and clustered weights", "pip install tensorflow-model-optimization tf_keras"),
    "tf2onnx": ("export --format onnx", "pip install 'kerasgreedy[export]'"),
    "onnxruntime": ("checking ONNX files", "pip install 'kerasgreedy[export]'"),
}


def doctor(
    devices: Annotated[
        bool, typer.Option("--devices/--no-devices", help="Ask TensorFlow for its devices; takes seconds.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Print versions, memory, devices and data sets at hand, and what is missing and how to get it."""
    found = _findings(devices)
    if as_json:
        output.put_json(found)
        return
    rows = [["kerasgreedy", __version__], ["Python", platform.python_version()]]
    rows += [[name, version or "missing"] for name, version in found["packages"].items()]
    output.put_table(["package", "version"], rows)
    memory = f"{found['memory_gb']:.1f} GB" if found["memory_gb"] is not None else "an unknown amount"
    output.put(f"{found['cores']} cores, {memory} of memory free, {found['disk_gb']:.0f} GB of disk free here")
    if found["bfloat16"] is not None:
        words = "yes" if found["bfloat16"] else "no: precision: mixed_bfloat16 is slower than float32 on it"
        output.put(f"instructions for bfloat16 on the processor: {words}")
    if devices:
        gpus = found["gpus"]
        output.put(f"devices: {', '.join(gpus) if gpus else 'CPU only'}")
    here = [entry["name"] for entry in found["sets"] if entry["here"]]
    output.put(f"data sets at hand: {', '.join(here)}; `kerasgreedy data list` says how others are had")
    for line in found["advice"]:
        output.put(f"- {line}")
    if not found["advice"]:
        output.put("nothing is missing")


def _findings(devices: bool) -> dict[str, Any]:
    from kerasgreedy.data.listing import list_sets
    from kerasgreedy.data.memory import available_memory
    from kerasgreedy.runs.environment import has_bfloat16

    packages = {name: _version(name) for name in (*PACKAGES, *EXTRAS)}
    advice = [f"{name} is missing: pip install {name}" for name in PACKAGES if packages[name] is None]
    advice += [f"{name} is missing ({use}): {way}" for name, (use, way) in EXTRAS.items() if packages[name] is None]
    memory, disk = available_memory() / 1e9, shutil.disk_usage(Path.cwd()).free / 1e9
    if memory < 3:
        advice.append(f"{memory:.1f} GB of memory are free; TensorFlow and a small network take about 2: close other programs")
    if disk < 2:
        advice.append(f"{disk:.1f} GB of disk are free here; checkpoints and caches need room: give --workdir on another disk")
    gpus = _gpus() if devices else []
    if devices and not gpus and shutil.which("nvidia-smi"):
        advice.append("there is an NVIDIA driver, and TensorFlow sees no GPU: pip install 'tensorflow[and-cuda]'")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sets = [{"name": entry["name"], "here": entry["here"]} for entry in list_sets()]
    return {
        "version": __version__, "python": platform.python_version(), "platform": platform.platform(), "packages": packages,
        "cores": cores, "memory_gb": round(memory, 2) if memory < 1e6 else None, "disk_gb": round(disk, 2), "gpus": gpus,
        "sets": sets, "advice": advice, "bfloat16": has_bfloat16(),
    }  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    quiet_tensorflow()
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    return [str(tf.config.experimental.get_device_details(device).get("device_name", device.name)) for device in devices]
