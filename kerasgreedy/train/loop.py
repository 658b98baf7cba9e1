"""The one loop: restore, start, train an epoch, evaluate, log, save, for every phase of the plan."""

import math
import time
from typing import Any

import tensorflow as tf

from kerasgreedy.data.memory import peak_memory
from kerasgreedy.data.pipeline import Pipeline
from kerasgreedy.errors import Diverged, Stopped
from kerasgreedy.inputs.feature_store import StoreFolder
from kerasgreedy.inputs.features import FeatureInput, PhaseInput
from kerasgreedy.inputs.phase_inputs import Inputs
from kerasgreedy.network.identity import start_as_identity
from kerasgreedy.plan.actions import Action
from kerasgreedy.plan.preparation import Job
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.devices import Devices
from kerasgreedy.runs.kept_weights import is_due, kept_file
from kerasgreedy.runs.metrics_log import MetricsLog
from kerasgreedy.runs.state import RunState
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.solvers.schedules import learning_rates, make_optimizer
from kerasgreedy.solvers.solver import Solver, Task
from kerasgreedy.solvers.step import Result, class_weights
from kerasgreedy.spec.solver_settings import SOLVERS
from kerasgreedy.train.best_point import BestPoint
from kerasgreedy.train.monitoring import Watch, diverged, watched_parts
from kerasgreedy.train.performing import Doing, perform
from kerasgreedy.train.progress import Reporter
from kerasgreedy.train.records import Records
from kerasgreedy.train.signals import Asked
from kerasgreedy.train.speed import Speed, means

# How often a step's figures are fetched from the device, which waits for it.
LOOK_SECONDS = 1.0
# After an epoch, a checkpoint is written when the last one was so many times its own duration ago.
SAVE_SHARE = 30


class Loop:
    """Runs the phases of a job from wherever its state stands.

    Args:
        job: spec, recipe and plan.
        state: network, position and checkpoints.
        pipeline: batches.
        strategy: that the network was built under.
        log: metrics.
        reporter: progress.
        asked: whether to stop.
        folder: of the run; cached features lie there too, if on disk.
    """

    def __init__(
        self,
        job: Job,
        state: RunState,
        pipeline: Pipeline,
        strategy: tf.distribute.Strategy,
        log: MetricsLog,
        reporter: Reporter,
        asked: Asked,
        folder: Workdir,
    ):
        self.job, self.state, self.pipeline, self.strategy = job, state, pipeline, strategy
        self.devices = Devices.of(strategy)
        self.log, self.reporter, self.asked = log, reporter, asked
        self.folder, self.stores = folder, StoreFolder(folder.path / "cache")
        self.inputs = Inputs(pipeline, self.devices, self.stores, job.recipe.cache)
        # Of the running phase.
        self.training = job.recipe.training
        self.solver: Solver
        self.best: BestPoint
        self.input: PhaseInput
        self.records: Records
        self.steps: int
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0
        self._saved_place: tuple[int, int, int] | None = None
        changes = len(folder.changes())
        self.changed, state.position.changes = changes > state.position.changes, changes

    def run(self) -> Job:
        """Runs until the plan is done; returns the job with the network's last spec.

        Raises:
            Stopped: a signal came; a checkpoint was written.
            Diverged: the loss or a weight is not finite; the last good checkpoint stands.
        """
        try:
            while self.state.position.phase < len(self.job.phases):
                stage = self.job.phases[self.state.position.phase]
                if isinstance(stage, Action):
                    self._act(stage)
                else:
                    assert isinstance(stage, Phase)
                    self._phase(stage)
        except Diverged:
            self.stores.keep_only()  # nobody will go on from here with the same settings
            raise
        self.stores.keep_only()
        self.state.complete()
        return self.job

    def _act(self, action: Action) -> None:
        """Lets an action change the network, unless a signal comes first, and goes on with the plan for what it leaves."""
        ends = self.asked.ends(f"before {action.name}; saved")
        ends()
        self.reporter.action(action)
        started = time.monotonic()

        def measured(done: int, total: int) -> None:
            self.reporter.images_done(action.name, action.looks, done, total)
            ends()

        outcome = perform(action, Doing(self.job, self.state.network, self.pipeline, self.strategy, measured, ends))
        entry = outcome.entry.as_dict()
        self.job = self.job.at(outcome.spec, [*self.state.position.kept, entry])
        self.folder.keep(outcome.files)
        self.state.position.seconds += time.monotonic() - started
        self.state.finish_action(outcome.network, outcome.spec, entry)
        self.reporter.acted(entry, self.job.phases)
        self._save(())
        # After the checkpoint that holds this network.
        self.folder.keep_plan(outcome.spec, [stage.as_dict() for stage in self.job.phases])

    def _phase(self, phase: Phase) -> None:
        self.reporter.phase(phase)
        self.training = phase.training
        self.records = Records(self.log, self.state.position, self.job.phases, phase, self.pipeline)
        self.steps = self.records.steps
        rates = learning_rates(self.training.optimizer.learning_rate, self.training.schedule, phase.epochs, self.steps)
        if not self.state.position.started and phase.init == "identity" and phase.block is not None:
            start_as_identity(self.state.network, phase.block)
        with self.strategy.scope():
            self.state.network.compute_in(phase.precision, phase.trains)
            self.state.network.compute_in(phase.prefix_precision, phase.frozen)
            optimizer = make_optimizer(self.training.optimizer, rates, phase.precision)
        self.input = self._open_input(phase)
        asked = self.training.class_weights
        weights = class_weights(asked, self.pipeline.train_counts, self.job.data.class_names) if asked else None
        task = Task(phase, self.state.network, optimizer, self.strategy, self.input, self.stores, weights)
        self.solver = SOLVERS.load(phase.solver)(task)
        if not self.state.attach(optimizer, self.solver.extras, self.changed):
            self.reporter.say("  the optimiser is of another kind than before: it begins anew")
        watch = Watch(phase, self.state.network, self.strategy, self.input, watched_parts(self.training, self.pipeline))
        self.best = BestPoint(phase, self.state, watch, self.solver, self.steps, self.folder)
        if not self.state.position.started:
            self._start(phase, watch)
        elif self.changed:
            self.best.judge_anew(self.asked.ends(f"before phase {phase.name} went on; what was saved before is whole"))
        while not self._phase_done(phase):
            self._begin_epoch(phase)
            train = self._epoch(phase)
            self._after_epoch(phase, train, watch, float(rates[min(self.records.step, len(rates)) - 1]))
        if phase.index + 1 == len(self.job.phases) and self._saved_place != self._place():
            self._save(phase.trains)  # from here the run can be trained longer
        if self.training.keep == "last":
            self.folder.keep(self.solver.files())
        verdict = self.solver.verdict()
        ended_by = {"verdict": verdict.reason} if verdict else {}
        self.state.finish_phase(phase, self.training.keep == "best", {**self.solver.record().as_dict(), **ended_by})
        self._save(phase.trains)
        del self.input, self.solver, self.best  # and with them cached features that the next phase has no use for

    def _open_input(self, phase: Phase) -> PhaseInput:
        """What the phase reads; a signal while features are computed ends the run."""
        started = time.monotonic()

        def filled(done: int, total: int) -> None:
            self.reporter.images_done(phase.name, "filling the cache", done, total)
            if self.asked():
                raise Stopped(self._stopped(phase))

        epochs = range(self.state.position.epoch, phase.epochs) if not self.state.position.ended(phase) else range(0)
        parts = watched_parts(self.training, self.pipeline)
        source = self.inputs.open(phase, self.state.network, epochs, parts, filled, self.reporter.warn)
        if isinstance(source, FeatureInput):
            self.state.position.seconds += time.monotonic() - started
        return source

    def _start(self, phase: Phase, watch: Watch) -> None:
        """The start of a phase is a point of its path too (Prop. 3.1 needs it)."""
        if self.best.counts():
            looks = watch.look(0, self.asked.ends(f"before phase {phase.name} began; what was saved before is whole"))
            self.records.looks(looks)
            self.best.take(looks)
        self._keep_weights(phase)
        self.state.position.started = True
        self._save(phase.trains)

    def _begin_epoch(self, phase: Phase) -> None:
        """Lets the solver get ready, and logs what it noted."""
        position = self.state.position
        started = time.monotonic()
        work = self.solver.prepare(position.epoch, position.step)
        for what, done, total in work:
            self.reporter.images_done(phase.name, what, done, total)
            if self.asked():
                work.close()
                self._save(phase.trains)
                raise Stopped(self._stopped(phase))
        position.seconds += time.monotonic() - started
        for line in self.solver.news():
            self.reporter.say(f"  {line}")
        for event in self.solver.events(position.epoch) if position.step == 0 else []:
            self.records.event(event)

    def _epoch(self, phase: Phase) -> dict[str, Any]:
        """Trains what is left of the running epoch; returns its means."""
        position = self.state.position
        batch_size = self.training.batch_size
        pending: list[Result] = []
        speed = Speed(batch_size)
        last = phase.losses[-1]
        for result in self.solver.epoch(position.epoch, position.step, self.records.step):
            pending.append(result)
            position.step += 1
            # Clocks differ: several workers do what they do together by the number of the step.
            together = self.asked.is_time(position.step)
            if position.step == self.steps or (
                together and (speed.seconds_since_look > LOOK_SECONDS or self.devices.workers > 1)
            ):
                self._absorb(phase, pending)
                speed.look()
            lap = speed.lap(counts=result.warm)
            position.seconds += lap
            figures = {**(means(position.sums[last]) if position.sums else {}), **speed.figures()}
            self.reporter.step(phase, position.epoch, position.step, lap, figures)
            if not together:
                continue
            asked, due = self.asked.after_step(self.devices.chief and self._save_is_due())
            stopping = asked and position.step < self.steps
            if stopping or due:
                self._absorb(phase, pending)
                self._save(phase.trains)
                speed.restart()
            if stopping:
                raise Stopped(self._stopped(phase))
        return {head: {**means(sums), **speed.figures()} for head, sums in position.sums.items()}

    def _absorb(self, phase: Phase, pending: list[Result]) -> None:
        """Adds the sums of steps that were sent off to those of the epoch, and looks whether they are finite."""
        sums = self.state.position.sums
        for result in pending:
            for head, values in result.sums.items():
                loss, right = (float(value) for value in values.numpy())
                if not math.isfinite(loss):
                    raise diverged(phase, self.state.position.epoch, f"the training loss of {head} is {loss}")
                old = sums.get(head, [0.0, 0.0, 0.0])
                sums[head] = [old[0] + loss, old[1] + right, old[2] + (result.examples or self.training.batch_size)]
        pending.clear()

    def _after_epoch(self, phase: Phase, train: dict[str, Any], watch: Watch, rate: float) -> None:
        position = self.state.position

        def seen() -> None:
            if self.asked():
                self._save(phase.trains)  # with all steps of the epoch done
                raise Stopped(self._stopped(phase))

        looks = watch.look(position.epoch, seen)
        position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
        self._keep_weights(phase)
        self.solver.end(sum(values["loss"] for values in train.values()))
        norm = self.state.network.weight_norm(phase.trains)
        spent = {"elapsed_seconds": round(position.seconds, 3), "peak_memory_bytes": peak_memory()}
        self.records.scores("train", train, learning_rate=rate, weight_norm=norm, **spent, **self.solver.figures())
        self.records.looks(looks)
        note = ", best so far" if self.best.counts() and self.best.take(looks) else ""
        last = phase.losses[-1]
        self.reporter.epoch(phase, position.epoch, train[last], looks.get("validation", {}).get(last, {}), note)
        due = self.devices.chief and time.monotonic() - self._saved_at > SAVE_SHARE * self._save_seconds
        stopping, due = self.asked.and_save(due)
        if stopping or due:
            self._save(phase.trains)
        if stopping and not (self._phase_done(phase) and phase.index + 1 == len(self.job.phases)):
            raise Stopped(self._stopped(phase))

    def _keep_weights(self, phase: Phase) -> None:
        epoch = self.state.position.epoch
        if is_due(self.job.recipe.keep_checkpoints, phase.epochs, epoch):
            arrays = {key: value for name in phase.trains for key, value in self.state.network.arrays(name).items()}
            self.folder.keep(kept_file(phase.index, epoch, arrays))

    def _phase_done(self, phase: Phase) -> bool:
        return self.state.position.ended(phase) or (self.state.position.started and self.solver.verdict() is not None)

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self.job.recipe.checkpoint_minutes

    def _save(self, changed: tuple[str, ...]) -> None:
        before = time.monotonic()
        self.log.flush()
        position = self.state.position
        position.log_bytes = self.log.length
        position.log_marks = [*position.log_marks[: position.phase], (self.log.length, self.log.digest)]
        self.state.save(changed)
        self._saved_at, self._saved_place = time.monotonic(), self._place()
        self._save_seconds = self._saved_at - before

    def _place(self) -> tuple[int, int, int]:
        position = self.state.position
        return position.phase, position.epoch, position.step

    def _stopped(self, phase: Phase) -> str:
        position = self.state.position
        return f"stopped by {self.asked.signal} in phase {phase.name}, epoch {position.epoch + 1}, step {position.step}; saved"
