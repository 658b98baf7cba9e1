"""A phase's solver."""

import keras
import tensorflow as tf

from kerasgreedy.build import Network
from kerasgreedy.train.feature_store import StoreFolder
from kerasgreedy.train.features import PhaseInput
from kerasgreedy.train.solvers.alternation import Alternation
from kerasgreedy.train.solvers.descent import Descent, Solver
from kerasgreedy.train.stages import Phase


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
