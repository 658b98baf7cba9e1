"""Learning rates of one phase, step by step."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from kerasgreedy.spec.training import OPTIMIZERS, CosineSchedule, OptimizerSettings, Schedule, StepSchedule

if TYPE_CHECKING:
    from numpy.typing import NDArray


def learning_rates(base: float, schedule: Schedule, epochs: int, steps_per_epoch: int) -> "NDArray[np.float32]":
    """The learning rate of every step of a phase.

    With t the epoch as a real number (step / steps_per_epoch), T the epochs and w the warm-up:
    step: base * factor^floor(t / every), or base * factor^n with n the number of epochs in `at` that are not above t;
    cosine: base * (f + (1 - f) * (1 + cos(pi * (t - w) / (T - w))) / 2);
    during the warm-up the rate is base * (step + 1) / (w * steps_per_epoch).

    Returns:
        (epochs * steps_per_epoch,) float32.
    """
    step = np.arange(epochs * steps_per_epoch)
    epoch = step / steps_per_epoch
    warmup = schedule.warmup_epochs
    if isinstance(schedule, StepSchedule):
        if schedule.at is not None:
            drops = np.searchsorted(np.multiply(schedule.at, steps_per_epoch), step, side="right")
        else:
            assert schedule.every is not None
            drops = step // (schedule.every * steps_per_epoch)
        rates = base * schedule.factor**drops
    elif isinstance(schedule, CosineSchedule):
        share = np.clip((epoch - warmup) / max(epochs - warmup, 1e-9), 0, 1)
        rates = base * (schedule.final + (1 - schedule.final) * (1 + np.cos(np.pi * share)) / 2)
    else:
        rates = np.full(step.shape, base)
    if warmup > 0:
        rates = np.where(epoch < warmup, base * np.minimum((step + 1) / (warmup * steps_per_epoch), 1), rates)
    return rates.astype(np.float32)


class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Looks the learning rate of a step up in a table; the last entry holds beyond its end."""

    def __init__(self, rates: "NDArray[np.float32]"):
        self.rates = np.asarray(rates, np.float32)

    def __call__(self, step: Any) -> Any:
        last = len(self.rates) - 1
        return tf.gather(tf.constant(self.rates), tf.minimum(tf.cast(step, tf.int32), last))

    def get_config(self) -> dict[str, Any]:
        return {"rates": self.rates.tolist()}


def make_optimizer(
    settings: OptimizerSettings, rates: "NDArray[np.float32]", precision: str = "float32"
) -> keras.optimizers.Optimizer:
    """The Keras optimiser of a phase. Coupled weight decay is not its business: the step adds it to the gradient.

    float16 gets dynamic loss scaling: its small gradients would vanish otherwise. A step whose scaled gradients overflow is
    skipped and the scale halved; after 2,000 steps without one it is doubled.
    """
    schedule = TableSchedule(rates)
    # Settings have the names of Keras's arguments.
    given = settings.model_dump(exclude={"name", "learning_rate"})
    if settings.coupled:
        del given["weight_decay"]
    optimizer = OPTIMIZERS.load(settings.name)(schedule, **given)
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer
