"""What does the work of the plug-in `margin`; imported when something trains."""

import tensorflow as tf

from kerasgreedy.nn.objectives import Objective


class MarginLoss(Objective):
    """1/2 sum over classes of max(0, m - s f)^2 with s = +-1, and activity * mean(block^2)."""

    words = "squared hinge"

    def __call__(self, outputs, labels, block):
        outputs = tf.cast(outputs, tf.float32)
        signs = 2 * self.target(labels, outputs.shape[-1]) - 1
        loss = 0.5 * tf.reduce_sum(tf.square(tf.nn.relu(self.settings.by - signs * outputs)), -1)
        axes = list(range(1, len(block.shape)))
        return loss + self.settings.activity * tf.reduce_mean(tf.square(tf.cast(block, tf.float32)), axes)
