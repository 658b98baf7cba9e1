"""The best point of a running phase: the start of its path, or the end of an epoch."""

from collections.abc import Callable

from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.state import Best, RunState
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.solvers.solver import Solver
from kerasgreedy.train.monitoring import Looks, Watch


class BestPoint:
    """Which point of a phase's path is kept.

    Args:
        steps: of an epoch.
        folder: of the run, where what the solver keeps beside the point lies.
    """

    def __init__(self, phase: Phase, state: RunState, watch: Watch, solver: Solver, steps: int, folder: Workdir):
        self._phase, self._state, self._watch, self._solver = phase, state, watch, solver
        self._steps, self._folder = steps, folder

    def counts(self) -> bool:
        """Whether the point that the run stands at may be the best one."""
        position = self._state.position
        return self._phase.training.watches and self._solver.counts(position.epoch, position.epoch * self._steps + position.step)

    def take(self, looks: Looks) -> bool:
        """Keeps the point that the run stands at if it is the best so far; whether it is.

        Args:
            looks: at it, of `Watch`.
        """
        position = self._state.position
        score = self._watch.score(looks)
        if position.best is not None and not score > position.best.score:
            position.best.waited += 1
            return False
        position.best = Best(score, position.epoch, monitor=self._phase.training.monitor)
        self._state.keep_best(self._phase)
        if self._phase.training.keep == "best" and position.epoch:
            self._folder.keep(self._solver.files())
        return True

    def judge_anew(self, seen: Callable[[], None]) -> None:
        """Scores the best point so far by what is monitored from now on.

        Where none was kept, it is that of now, if an epoch has ended.

        Args:
            seen: called while images are looked at; may end the run.
        """
        position, network = self._state.position, self._state.network
        best, monitor = position.best, self._phase.training.monitor
        if not self._phase.training.watches or (best and best.monitor == monitor):
            return
        if best is None:
            if position.step == 0 and self.counts():
                self.take(self._watch.look(position.epoch, seen))
            return
        with network.holding(self._state.best_arrays):
            position.best = Best(self._watch.score(self._watch.look(best.epoch, seen)), best.epoch, monitor=monitor)
