"""A phase's solver."""

import keras
import tensorflow as tf

from kerasgreedy.inputs.feature_store import StoreFolder
from kerasgreedy.inputs.features import PhaseInput
from kerasgreedy.network.build import Network
from kerasgreedy.plan.stages import Phase
from kerasgreedy.solvers.alternation.alternation import Alternation
from kerasgreedy.solvers.descent import Descent, Solver


def open_solver(
    phase: Phase,
    network: Network,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    source: PhaseInput,
    folder: StoreFolder,
) -> Solver:
    """The solver that the plan names."""
    if phase.alternation:
        return Alternation(phase, network, optimizer, strategy, source, folder)
    return Descent(phase, network, optimizer, strategy, source)
