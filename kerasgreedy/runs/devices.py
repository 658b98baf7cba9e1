"""Where a run computes: one device, all devices of a machine, or several machines."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerasgreedy.data.distributed import distributed
from kerasgreedy.errors import InputError, WorkerLost, tell
from kerasgreedy.runs.cluster import check_tf_config
from kerasgreedy.spec.recipe import Distribute

# Parts of a CPU, to try things out: each takes threads and memory of its own.
MOST_PARTS = 64
# What TensorFlow raises on the workers that are left when one is gone.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.CancelledError)


@dataclass(frozen=True)
class Devices:
    """A strategy, and this process's place in it.

    Attributes:
        strategy: that the network is built under.
        worker: number of this process; the chief is 0 and alone writes to the run folder.
        workers: number of processes.
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    workers: int = 1

    @classmethod
    def of(cls, strategy: tf.distribute.Strategy) -> "Devices":
        """The place of this process in a strategy that a caller made."""
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return cls(strategy)
        resolver = strategy.cluster_resolver
        cluster = resolver.cluster_spec().as_dict()
        chiefs = len(cluster.get("chief", []))
        workers = chiefs + len(cluster.get("worker", []))
        if workers < 2:
            return cls(strategy)
        return cls(strategy, resolver.task_id + (chiefs if resolver.task_type == "worker" else 0), workers)

    @property
    def chief(self) -> bool:
        """Whether this process writes."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Copies of the network, over all workers."""
        return self.strategy.num_replicas_in_sync

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag: whether it is set on any worker. All workers have to call this at the same place."""
        if self.workers == 1:
            return flags
        total = self._summed(np.array(flags, np.float32))
        return tuple(bool(value > 0) for value in total)

    def from_chief(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """What the chief holds, on every worker: float32, uint8 or bool. All workers have to call this at the same place."""
        if self.workers == 1:
            return arrays
        local = self.replicas // self.workers
        result = {}
        for key, value in arrays.items():
            array = np.asarray(value)
            total = self._summed(array.astype(np.float32) if self.chief else np.zeros(array.shape, np.float32)) / local
            result[key] = total > 0 if array.dtype == bool else total.astype(array.dtype)
        return result

    def same(self, text: str) -> bool:
        """Whether every worker gives the same text. All workers have to call this at the same place."""
        own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
        return not self.agree(bool((self.from_chief({"text": own})["text"] != own).any()))[0]

    def _summed(self, values: Any) -> Any:
        per_replica = self.strategy.run(tf.identity, args=(tf.constant(values),))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None).numpy()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that every worker has to do before any may go on; where one fails, all end.

        Raises:
            InputError: another worker failed.
        """
        try:
            yield
        except Exception:
            with self.readable_loss():
                self.agree(True)
            raise
        with self.readable_loss():
            failed = self.agree(False)[0]
        if failed:
            raise InputError("another worker could not start; what it printed says why")

    @contextmanager
    def readable_loss(self) -> Iterator[None]:
        """Turns the loss of a worker into an error that says what to do."""
        try:
            yield
        except LOST as error:
            if self.workers == 1:
                raise
            raise WorkerLost(
                f"a worker was lost ({type(error).__name__}). What was saved before is whole; train --resume goes on from there, "
                "with any number of workers"
            ) from None

    def local(self, values: Any) -> Any:
        """A value of each device of this worker."""
        return self.strategy.experimental_local_results(values)

    def batches(self, data: tf.data.Dataset) -> Any:
        """Global batches, each device's share of them."""
        return distributed(self.strategy, data)


def open_devices(distribute: Distribute, devices: str | None = None, quiet: bool = False) -> Devices:
    """The devices that a recipe's `distribute` and the option `--devices` name, for training. To be called before anything is
    computed.

    `multi_worker` without TF_CONFIG is one worker; with it, this returns when all workers are there.

    Args:
        devices: `2`: so many of the GPUs, or where there is none, so many parts of the CPU; or names, `GPU:0,GPU:1`.
        quiet: does not say that it waits.

    Raises:
        InputError: there are no such devices, or TF_CONFIG cannot be used.
    """
    if distribute == "multi_worker" and "TF_CONFIG" in os.environ:  # an empty one is refused: it was meant to name a cluster
        return _workers(None if devices is None else _names(devices), quiet)
    return own_devices(distribute, devices)


def own_devices(distribute: Distribute, devices: str | None = None) -> Devices:
    """Those of this machine alone, whatever TF_CONFIG says: for looking at a run. See `open_devices`."""
    names = None if devices is None else _names(devices)
    if distribute == "multi_worker":  # one worker: its own GPUs
        distribute = "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"
    if distribute == "none" and names is None:
        return Devices(tf.distribute.get_strategy())
    if names and len(names) == 1:
        return Devices(tf.distribute.OneDeviceStrategy(f"/{names[0]}"))
    # On CPUs TensorFlow's usual reduction fails when a process has had another strategy before.
    on_cpu = names is not None and names[0].startswith("CPU")
    reduce = tf.distribute.HierarchicalCopyAllReduce() if on_cpu else None
    return Devices(tf.distribute.MirroredStrategy(names, cross_device_ops=reduce))


def _names(devices: str) -> list[str]:
    """Device names, such as GPU:0."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    most = gpus or MOST_PARTS
    if devices.isdecimal():
        count = int(devices) if len(devices) < 6 else most + 1
        if not 1 <= count <= most:
            raise InputError(f"--devices: received {devices[:40]}; allowed: 1 to {most}")
        names = [f"{'GPU' if gpus else 'CPU'}:{index}" for index in range(count)]
    else:
        names = [name.strip().upper() for name in devices.split(",")]
    for name in names:
        kind, _, number = name.partition(":")
        if kind not in ("CPU", "GPU") or not number.isdecimal() or (kind == "CPU" and int(number[:6]) >= MOST_PARTS):
            raise InputError(
                f"--devices: received '{devices[:80]}'; allowed: a number, or names such as GPU:0,GPU:1 or CPU:0,CPU:1 (up to "
                f"CPU:{MOST_PARTS - 1})"
            )
        if kind == "GPU" and int(number[:6]) >= gpus:
            raise InputError(f"--devices: there is no {name}; this machine has {gpus} GPUs")
    if len(set(names)) < len(names) or len({name[:3] for name in names}) > 1:
        raise InputError(f"--devices: received '{devices}'; allowed: different devices of one kind")
    if names[0].startswith("CPU"):
        _split_cpu(max(int(name[4:]) for name in names) + 1)
    return names


def _split_cpu(count: int) -> None:
    """So many logical devices on the CPU, which share its cores."""
    have = tf.config.get_logical_device_configuration(tf.config.list_physical_devices("CPU")[0])
    if count <= len(have or [None]):
        return
    try:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise InputError(
            f"--devices: the CPU cannot be split into {count} any more, TensorFlow has begun to compute in this process"
        ) from None


def _workers(names: list[str] | None, quiet: bool) -> Devices:
    if names and names[0].startswith("CPU"):
        raise InputError(
            "--devices: with several workers names GPUs only; a worker without any has one copy of the network on its CPU"
        )
    if names and names[0].startswith("GPU"):
        every = tf.config.list_physical_devices("GPU")
        tf.config.set_visible_devices([every[int(name[4:])] for name in names], "GPU")
    addresses = check_tf_config(os.environ["TF_CONFIG"])
    if not quiet:
        tell(f"waiting for all workers: {', '.join(addresses)}")
    return Devices.of(tf.distribute.MultiWorkerMirroredStrategy())
