"""Twenty steps of several kinds of training under a strategy; run as a program, under that of TF_CONFIG.

Arguments: the file that the chief writes weights to; `all` for every kind.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import numpy as np
import tensorflow as tf

STEPS, BATCH = 20, 16
# Batch norm: by the statistics of the global batch, by those of each worker's share, or none.
KINDS = [
    (plan, norm, optimizer)
    for plan in ("greedy", "decoupled", "end_to_end")
    for norm in ("global", "share", "none")
    for optimizer in ("sgd", "adam")
]
# Every plan, norm and optimiser at least once.
SOME = [
    ("greedy", "global", "sgd"),
    ("decoupled", "share", "adam"),
    ("end_to_end", "none", "sgd"),
    ("end_to_end", "global", "adam"),
]


def weights_after(strategy, kinds):
    """`greedy-global-sgd/block_1/...` -> array, for every kind; clipping and decay on.

    Alone, a process takes the shares of two workers one after the other; what moving statistics then come to is left out.
    """
    from conftest import TINY_SPEC
    from one_step import arrays_of, setup

    from kerasgreedy.runs.devices import Devices
    from kerasgreedy.spec.training import Adam, Sgd

    here = Devices.of(strategy)
    result = {}
    for plan, norm, optimizer in kinds:
        spec = TINY_SPEC.replace(", {dropout: 0.25}", "")
        settings = Sgd() if optimizer == "sgd" else Adam(name="adam")
        network, _, step = setup(
            plan, spec if norm != "none" else spec.replace("batch_norm: true", "batch_norm: false"), strategy=strategy,
            settings=settings, rate=0.003, decay=1e-3, clip=0.5, synchronized=norm == "global",
            more=("training.accumulation=2",) if norm == "share" and here.workers == 1 else (),
        )  # fmt: skip
        rng = np.random.default_rng(9)
        images = rng.normal(size=(STEPS * BATCH, 8, 8, 1)).astype(np.float32)
        labels = rng.integers(0, 10, STEPS * BATCH).astype(np.int32)
        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH, drop_remainder=True)
        for batch in here.batches(data):
            step(*batch)
        arrays = {key: value for key, value in arrays_of(network).items() if norm != "share" or "moving_" not in key}
        result |= {f"{plan}-{norm}-{optimizer}/{key}": value for key, value in arrays.items()}
    return result


if __name__ == "__main__":
    workers = tf.distribute.MultiWorkerMirroredStrategy()
    found = weights_after(workers, KINDS if "all" in sys.argv else SOME)
    if workers.cluster_resolver.task_id == 0:
        np.savez(sys.argv[1], **found)
