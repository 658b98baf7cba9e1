"""Momentum in the two forms that frameworks have; they part where the learning rate changes."""

from typing import Any, Literal

import keras
import tensorflow as tf


class MomentumSGD(keras.optimizers.SGD):
    """Stochastic gradient descent with momentum m at rate r.

    With form `keras` the velocity holds steps: v <- m v - r g, w <- w + v. A rate that drops acts on new gradients only: old
    steps go on at the old rate until they have died away. With form `pytorch` it holds gradients, v <- m v + g, w <- w - r v, so
    that a new rate acts at once, as in torch.optim.SGD. At a constant rate both are the same.

    Args:
        momentum_form: see above.
        others: see `keras.optimizers.SGD`.
    """

    def __init__(self, *args: Any, momentum_form: Literal["keras", "pytorch"] = "keras", **others: Any):
        super().__init__(*args, **others)
        self.momentum_form = momentum_form

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        if self.momentum_form == "pytorch":
            for variable in self.momentums:
                # Another name, so that a checkpoint of one form is not read as the other.
                variable._name = variable._name.replace("momentum", "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.momentum_form == "keras" or self.momentum == 0:
            super().update_step(gradient, variable, learning_rate)
            return
        rate, gradient = (tf.cast(value, variable.dtype) for value in (learning_rate, gradient))
        velocity = self.momentums[self._get_variable_index(variable)]
        momentum = tf.cast(self.momentum, variable.dtype)
        moved = velocity * momentum + gradient
        self.assign(velocity, moved)
        self.assign_sub(variable, rate * (gradient + momentum * moved if self.nesterov else moved))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum_form": self.momentum_form}
