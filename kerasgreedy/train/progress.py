"""Progress of long work, on standard error: a live bar on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from kerasgreedy.errors import printable
from kerasgreedy.plan.actions import Action
from kerasgreedy.plan.stages import Phase, Stage, phases_of
from kerasgreedy.reports.countdown import duration
from kerasgreedy.train.pace import Pace

PLAIN_SECONDS = 20.0
SIZES = {"parameters": "parameters", "multiply_adds": "multiply-adds"}


class Reporter:
    """Tells a person what training does.

    Args:
        phases: the plan; time left is judged by the work that remains in it.
        train_images: images of one epoch.
        quiet: says nothing but warnings.
    """

    def __init__(self, phases: tuple[Stage, ...], train_images: int, quiet: bool = False):
        self._phases, self._quiet = phases, quiet
        self._pace = Pace(train_images)
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal and not quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._spoken = time.monotonic()

    def say(self, text: str) -> None:
        """A line for people."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line that is printed even when quiet."""
        self._console.print(printable(text), markup=False, emoji=False, soft_wrap=True)

    def phase(self, phase: Phase) -> None:
        """A phase begins."""
        self._pace.phase()
        init = f", starts as the identity on {phase.name}" if phase.init == "identity" else ""
        if phase.init_reason:
            init = f", fresh start: {phase.init_reason}"
        if str(phase.solver_plan):
            init += f", {phase.solver_plan}"
        if phase.sparsity:
            init += f", sparsity {phase.sparsity}"
        trains = f"{phase.parameters:,} weights"
        cache = f", input {phase.cache}" if phase.cache.used else ""
        self.say(f"phase {phase.index + 1}/{len(self._phases)} {phase.name}: trains {trains}, {phase.epochs} epochs{init}{cache}")

    def action(self, action: Action) -> None:
        """An action begins."""
        self.say(f"action {action.index + 1}/{len(self._phases)} {action.name}: {action.what}")

    def acted(self, entry: dict[str, Any], phases: tuple[Stage, ...]) -> None:
        """An action is done, and the plan is now another."""
        self._phases = phases
        sizes = [f"{what} {entry[key][0]:,} -> {entry[key][1]:,}" for key, what in SIZES.items()]
        looked = entry.get("validation")
        change = f", validation accuracy {looked['before']['top1']:.4f} -> {looked['after']['top1']:.4f}" if looked else ""
        if "fitted" not in entry:
            self.say(f"  {', '.join(sizes)}{change}")
        for line in entry.get("news", []):
            self.say(f"  {line}")
        stays = entry.get("zeros") or entry.get("held")  # news, which says of zeros that they stay
        if entry["action"] in ("prune", "threshold") and entry["parameters"][0] == entry["parameters"][1] and not stays:
            self.warn(
                "  no filter was removed: the amount is reached already, tau is below every norm, or accuracy_drop allows no step"
            )

    def images_done(self, name: str, what: str, done: int, total: int) -> None:
        """In a phase or action, so many images have been seen by something that trains nothing."""
        if done >= total:
            self._close_bar()
        elif self._live:
            self._draw(f"{name} {what}", done, total, "")
        elif time.monotonic() - self._spoken > PLAIN_SECONDS:
            self._spoken = time.monotonic()
            self.say(f"  {what}: {done:,} of {total:,} images")

    def step(self, phase: Phase, epoch: int, step: int, seconds: float, running: dict[str, Any]) -> None:
        """A step is done; `seconds` is how long the last one took, `running` the epoch's means so far."""
        self._pace.step(phase, seconds)
        if self._live:
            note = f"{_figures(running)}, {self.left(phase, epoch, step)}"
            self._draw(f"{phase.name} epoch {epoch + 1}/{phase.epochs}", step, self._pace.steps(phase), note)
        elif time.monotonic() - self._spoken > PLAIN_SECONDS:
            self._spoken = time.monotonic()
            self.say(
                f"  epoch {epoch + 1}/{phase.epochs}, step {step}/{self._pace.steps(phase)}: {_figures(running)}, "
                f"{self.left(phase, epoch, step)}"
            )

    def epoch(self, phase: Phase, epoch: int, train: dict[str, Any], validation: dict[str, Any], note: str) -> None:
        """An epoch is done."""
        self._pace.epoch(phase)
        self._close_bar()
        self._spoken = time.monotonic()
        checked = f" | validation {_figures(validation)}" if validation else ""
        self.say(f"  epoch {epoch}/{phase.epochs}: {_figures(train)}{checked}, {self.left(phase, epoch, 0)}{note}")

    def left(self, phase: Phase, epoch: int, step: int) -> str:
        """`1:20 left`, see `Pace`; empty while nothing is known."""
        seconds = self._pace.left(phase, epoch, step, list(phases_of(self._phases[phase.index + 1 :])))
        return "" if seconds is None else f"{duration(seconds)} left"

    def close(self) -> None:
        """Takes the bar off the screen."""
        self._close_bar()

    def _draw(self, what: str, done: int, total: int, note: str) -> None:
        if self._bar is None:
            columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, console=self._console, transient=True, refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task("", total=total, note="")
        assert self._task is not None
        self._bar.update(self._task, completed=done, description=what, note=note)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _figures(values: dict[str, Any]) -> str:
    words = {"loss": "loss {:.4f}", "accuracy": "accuracy {:.4f}", "images_per_second": "{:.0f} img/s"}
    return ", ".join(text.format(values[key]) for key, text in words.items() if key in values)
