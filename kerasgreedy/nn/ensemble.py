"""The vote of all heads (greedy, section 4: Z = sum over j of 2^j z_j)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def ensemble_weights(depths: Sequence[int]) -> list[float]:
    """2^j for each depth j, divided by their sum, which changes no decision and keeps the scale of one head."""
    top = max(depths)
    weights = [2.0 ** (depth - top) for depth in depths]
    return [weight / sum(weights) for weight in weights]


@keras.saving.register_keras_serializable("kerasgreedy")
class Ensemble(keras.layers.Layer):
    """Weighted vote of the heads' logits.

    Args:
        depths: the depth j = 1, 2, ... of each input.
        on: `logits`: weighted sum of the logits (the paper's CIFAR-10 code); `probabilities`: logarithm of the
            weighted sum of softmax outputs (its ImageNet code), so that a softmax of the result gives it back.

    Input: list of (batch, classes) logits; output: (batch, classes) logits of the ensemble, float32.
    """

    def __init__(self, depths: Sequence[int], on: str = "logits", **kwargs: Any):
        super().__init__(**kwargs)
        if on not in ("logits", "probabilities"):
            raise ValueError(f"on: received {on!r}; allowed: 'logits', 'probabilities'")
        self.depths = list(depths)
        self.on = on

    def call(self, logits: Sequence[Any]) -> Any:
        logits = [ops.cast(z, "float32") for z in logits]
        weights = ensemble_weights(self.depths)
        if self.on == "logits":
            return sum(weight * z for weight, z in zip(weights, logits, strict=True))
        logs = [ops.log_softmax(z) + ops.log(weight) for weight, z in zip(weights, logits, strict=True)]
        return ops.logsumexp(ops.stack(logs), axis=0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "depths": self.depths, "on": self.on}
