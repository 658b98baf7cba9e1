"""Global batches, shared out to devices."""

from typing import Any

import tensorflow as tf


def distributed(strategy: tf.distribute.Strategy, data: tf.data.Dataset) -> Any:
    """Global batches as each device's share of them; of several workers each reads all and keeps its own.

    Args:
        data: batches of the global size, the same on every worker.
    """
    options = tf.data.Options()
    # Its thread sleeps for twice as long each time, and the end of a data set waits until it wakes up: epochs of a few seconds
    # lasted up to twice as long. Without it, `AUTOTUNE` means all cores.
    options.autotune.enabled = False
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return strategy.experimental_distribute_dataset(data.with_options(options))


# TensorFlow would rewrite the source of what a data set calls, each time that one is made, for control flow that depends on
# tensors. There is none here, and the rewriting took longer than an epoch of a small network.
unconverted = tf.autograph.experimental.do_not_convert
