"""Opens the input of each phase, and hands cached features on to the next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kerasgreedy.data.pipeline import Part, Pipeline
from kerasgreedy.errors import InputError
from kerasgreedy.inputs.feature_store import StoreFolder
from kerasgreedy.inputs.features import FeatureInput, ImageInput, PhaseInput
from kerasgreedy.network.build import Network
from kerasgreedy.plan.stages import Phase
from kerasgreedy.runs.devices import Devices
from kerasgreedy.spec.recipe import Cache


class Inputs:
    """The inputs of a run's phases, one after the other.

    Args:
        stores: where cached features lie, if on disk.
        limits: of the cache.
    """

    def __init__(self, pipeline: Pipeline, devices: Devices, stores: StoreFolder, limits: Cache):
        self._pipeline, self._devices, self._stores, self._limits = pipeline, devices, stores, limits
        self._last: FeatureInput | None = None

    def open(
        self,
        phase: Phase,
        network: Network,
        epochs: range,
        parts: list[Part],
        filled: Callable[[int, int], None],
        warn: Callable[[str], None],
    ) -> PhaseInput:
        """Images, or the features that the plan caches; images too where there is no room after all.

        Args:
            network: in the precisions of the phase.
            epochs: that are still to run.
            parts: that are evaluated.
            filled: told how many images have gone through the frozen blocks, and of how many.
            warn: told what is not as planned.
        """
        with self._from_before(phase) as before:
            self._stores.keep_only(*([before.phase_index] if before else []), *([phase.index] if self._is_kept(phase) else []))
            images = ImageInput(phase, self._pipeline)
            alone = self._devices.workers == 1
            solver = phase.solver_plan
            if not alone and not self._pipeline.orderly and solver.takes_rows:
                raise InputError(
                    f"{phase.name}: several workers cannot store masks for images that come in the order of a TFDS copy; "
                    "training.solver.mode=batch can"
                )
            if not phase.cache.used or not epochs:
                return images
            if not alone and (solver.reads_alone or not self._pipeline.orderly):
                why = f"solver {phase.solver}" if solver.reads_alone else "images that come in the order of a TFDS copy"
                warn(f"several workers with {why} do not share a cache: the frozen blocks are run for each batch instead")
                return images
            fault: Exception | None = None
            try:
                cached = FeatureInput(phase, network, self._pipeline, self._devices, self._stores)
                cached.open(epochs, parts)
            except (OSError, MemoryError) as error:
                fault = error
            if self._devices.agree(fault is not None)[0]:  # all workers keep features, or none does
                return self._without_room(fault or "of another worker", images, warn)
            for line in cached.faults:
                warn(f"passed over {line}")
            try:
                for done, total in cached.fill(before):
                    filled(done, total)
            except (OSError, MemoryError) as error:
                if not alone:
                    raise  # the others wait for this worker's share
                return self._without_room(error, images, warn)
            self._stores.keep_only(phase.index)
            self._last = cached
            return cached

    @contextmanager
    def _from_before(self, phase: Phase) -> Iterator[FeatureInput | None]:
        """The features of the phase before, for as long as they serve this one; given back before others are made otherwise."""
        before, self._last = self._last, None
        serves = before is not None and phase.cache.used and before.fits_beside(phase, self._limits)
        if before and not serves:
            before.close()
        try:
            yield before if serves else None
        finally:
            if before:
                before.close()

    def _without_room(self, why: Exception | str, images: ImageInput, warn: Callable[[str], None]) -> ImageInput:
        self._stores.keep_only()
        warn(f"no room for the cache ({why}): the frozen blocks are run for each batch instead")
        return images

    @staticmethod
    def _is_kept(phase: Phase) -> bool:
        """Whether the phase leaves files that an earlier attempt at it may have begun."""
        return phase.cache.used or phase.solver_plan.keeps_files
