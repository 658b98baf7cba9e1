"""Train networks block by block: YAML model specs, layerwise training, readable and resumable runs.

The names below load TensorFlow only when they are used::

    import kerasgreedy as kg

    run = kg.train_spec("simcnn_k3_cifar", "quickstart", workdir="runs/first")
    print(run.results["ensemble"])
"""

import os
from typing import Any

# TensorFlow reads this when it is imported, and leaves oneDNN's kernels out by default on CPUs without avx512_vnni: there, steps
# took twice as long, and an image's features were rounded otherwise by its place in the batch. Setting it to 0 still does so.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"

_HOMES = {
    "train_spec": "kerasgreedy.train.entry_points",
    "resume_run": "kerasgreedy.train.entry_points",
    "evaluate_run": "kerasgreedy.train.evaluating",
    "prune_run": "kerasgreedy.train.prune_run",
    "threshold_run": "kerasgreedy.train.prune_run",
    "export_run": "kerasgreedy.export.export_run",
    "Export": "kerasgreedy.export.export_run",
    "load_network": "kerasgreedy.train.entry_points",
    "anytime_of": "kerasgreedy.analysis.anytime",
    "sensitivity_of": "kerasgreedy.analysis.sensitivity",
    "ImageArrays": "kerasgreedy.data.arrays",
    "Run": "kerasgreedy.train.entry_points",
    "build_network": "kerasgreedy.network.build",
    "Network": "kerasgreedy.network.build",
    "load": "kerasgreedy.spec.load",
    "load_spec": "kerasgreedy.spec.load",
    "load_recipe": "kerasgreedy.spec.load",
    "ModelSpec": "kerasgreedy.spec.model",
    "Recipe": "kerasgreedy.spec.recipe",
    "architecture": "kerasgreedy.graph.architecture",
    "prepare": "kerasgreedy.plan.preparation",
    "KerasgreedyError": "kerasgreedy.errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kerasgreedy' has no attribute '{name}'")
    import importlib

    if _HOMES[name].split(".")[1] in ("train", "export", "analysis", "network"):
        from kerasgreedy.nn.backend import check_backend

        check_backend()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
