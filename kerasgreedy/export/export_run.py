"""`export`: from a run folder to a version that others load without this package."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasgreedy.data.arrays import ImageArrays
from kerasgreedy.errors import InputError, WorkdirError, tell
from kerasgreedy.export import card, reusable, verify
from kerasgreedy.export.endpoints import EXPORT_TOP_K, Answer, Endpoints
from kerasgreedy.export.format_names import FORMATS
from kerasgreedy.export.formats import ExportFormat, NetworkSource
from kerasgreedy.export.free_size import FreeSize
from kerasgreedy.export.image_bytes import Preprocessing
from kerasgreedy.export.warmup import write_warm_up
from kerasgreedy.files import new_folder, plain_path, plain_temporary, user_path
from kerasgreedy.network.build import FLOAT32, Network
from kerasgreedy.plan.preparation import Job, prepare
from kerasgreedy.runs.exported import FACTS, checksums
from kerasgreedy.runs.open_run import open_job, trained_network
from kerasgreedy.runs.start_from import stored_info
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.strict_json import as_json

# TensorFlow Serving keeps it in 64 bits with a sign.
MOST_VERSION = 2**63 - 1


@dataclass(frozen=True)
class Export:
    """What to export.

    Attributes:
        version: a whole number from 1 to 2^63 - 1 that no version in OUT has; None: the one after the newest.
        answer: depth of the head whose prediction `serve` gives, or `ensemble`; None: the last trained depth.
        features_depth: of the block whose features the model gives when it is called; None: the last trained depth.
        top_k: classes that `serve` lists.
        free_size: images of any size.
        formats: further files, names of `format_names.FORMATS`.
    """

    version: int | None = None
    answer: Answer | None = None
    features_depth: int | None = None
    top_k: int = EXPORT_TOP_K
    free_size: bool = False
    formats: Sequence[str] = ()

    def check(self) -> None:
        """Raises InputError for values that no run could use."""
        if self.version is not None and not 1 <= self.version <= MOST_VERSION:
            raise InputError(f"version: received {self.version}; allowed: 1 to {MOST_VERSION}")
        if self.top_k < 1:
            raise InputError(f"top_k: received {self.top_k}; allowed: 1 or more")
        for name in self.formats:
            if not FORMATS.known(name):
                raise InputError(f"formats: {FORMATS.refused(name)}")


@plain_temporary()
def export_run(
    workdir: str | Path,
    out: str | Path,
    settings: Export | None = None,
    data: ImageArrays | None = None,
    quiet: bool = False,
    data_at: str | None = None,
) -> dict[str, Any]:
    """Writes the network of a run to `out/<version>/`: a SavedModel, and other formats beside it.

    The version appears whole or not at all, and only after every file in it gave what the network gives. The run folder is
    only read.

    Args:
        out: a folder of versions, as TensorFlow Serving reads them; made where it does not exist.
        data: the arrays that the run was trained on, where it was trained on its caller's; for `tflite_int8` only.
        quiet: no progress on standard error.
        data_at: where the data are now, see `moved_data`.

    Returns:
        `out` (of the version), `version`, `signatures`, `card`, `difference` (largest, of the SavedModel), `formats`.

    Raises:
        InputError: bad settings, a depth is not trained, a package is missing, or an exported file would give something else.
        DataError: the data of a format that needs some is not there.
        WorkdirError: the version exists, or cannot be written.
    """
    settings = settings or Export()
    settings.check()
    base = user_path(out)
    version = _version(base, settings.version)
    target = base / str(version)
    say = _say(quiet)
    folder = Workdir.open(workdir, data_at)
    if data_at is not None:
        open_job(folder, data)  # which compares what is there with what the run began with
    formats: dict[str, ExportFormat] = {name: FORMATS.load(name)() for name in settings.formats}
    for chosen in formats.values():
        chosen.check(folder, data)
    job, network = trained_network(folder, prepare(*folder.documents(), stored_info(folder), begins=False))
    network.compute_in(FLOAT32)
    for component in (*network.blocks, *network.heads):
        component.trainable = True
    answer, features_depth = chosen_depths(network, settings)
    endpoints = endpoints_of(job, network, answer, settings)
    facts = card.Facts(
        job,
        network.facts.depths,
        answer,
        features_depth,
        endpoints.preprocessing.words,
        network.facts.normalization,
        endpoints.image_shape[1:],
    )
    about = card.model_card(folder, facts)
    with new_folder(target) as beside:
        say("tracing and saving the endpoints")
        signatures = _save(beside, endpoints, features_depth, job, about)
        say("comparing it with the network")
        difference = verify.verify_saved_model(beside, endpoints, features_depth)
        written = []
        for name, chosen in formats.items():
            say(f"writing and comparing {name}")
            file = beside / chosen.file
            about_file = chosen.write(NetworkSource(network, answer, folder, data), file)
            written.append({"format": name, "file": chosen.file, "bytes": file.stat().st_size, **about_file})
        facts_of_files = {"signatures": signatures, "formats": written, "files": checksums(beside)}
        (beside / FACTS).write_text(as_json(facts_of_files, indent=1))
    return {
        "out": str(target),
        "version": version,
        "signatures": signatures,
        "card": about,
        "difference": difference,
        "formats": written,
    }


def _version(base: Path, wanted: int | None) -> int:
    """The version that is wanted, or the one after the newest of a folder."""
    if base.exists() and not base.is_dir():
        raise WorkdirError(f"{base}: is a file; allowed: a folder of versions, or a new one")
    try:
        present = {int(path.name): path for path in base.iterdir() if path.name.isdecimal()} if base.exists() else {}
    except OSError as error:
        raise WorkdirError(f"{base}: cannot be read ({error.strerror})") from None
    version = max(present, default=0) + 1 if wanted is None else wanted
    if version in present:  # 01 is 1, for those who read the folder too
        raise WorkdirError(f"{present[version]}: already exists; give another --version")
    if version > MOST_VERSION:
        raise WorkdirError(f"{base}: holds a version of {max(present)}; allowed: up to {MOST_VERSION}")
    return version


def _say(quiet: bool) -> Callable[[str], None]:
    def say(line: str) -> None:
        if not quiet:
            tell(line)

    return say


def chosen_depths(network: Network, settings: Export) -> tuple[Answer, int]:
    """Whose answer, and the features of which block.

    Raises:
        InputError: a depth is not trained.
    """
    trained = ", ".join(map(str, network.facts.depths))
    answer = network.facts.depths[-1] if settings.answer is None else settings.answer
    if answer != "ensemble" and answer not in network.facts.depths:
        raise InputError(f"depth: received {answer}; allowed: a trained depth ({trained}), or ensemble")
    features = network.facts.depths[-1] if settings.features_depth is None else settings.features_depth
    if not 1 <= features <= network.facts.depths[-1]:
        raise InputError(f"features_depth: received {features}; allowed: 1 to {network.facts.depths[-1]}")
    return answer, features


def endpoints_of(job: Job, network: Network, answer: Answer, settings: Export) -> Endpoints:
    """What a network answers to, with the preprocessing of the run that trained it.

    Raises:
        InputError: its images are of another number of channels than image files have.
    """
    height, width, channels = network.architecture.input_shape
    if channels not in (1, 3):
        raise InputError(f"the network takes images of {channels} channels; image files have 1 or 3")
    preprocessing = Preprocessing((height, width), channels, job.recipe.data.test_resize, job.data.known.upright)
    free = FreeSize(job.spec, network) if settings.free_size else None
    return Endpoints(network, answer, job.data.class_names, preprocessing, settings.top_k, free)


def _save(folder: Path, endpoints: Endpoints, features_depth: int, job: Job, about: dict[str, Any]) -> dict[str, Any]:
    """Writes the SavedModel with its assets and warm-up requests; returns its signatures."""
    with plain_path(folder) as plain, tempfile.TemporaryDirectory(dir=plain) as place:
        assets = card.write_assets(Path(place), about, job)
        weight_decay = job.recipe.training.optimizer.coupled_decay
        saved = reusable.saved_object(endpoints, features_depth, weight_decay, assets)
        signatures = reusable.save(saved, endpoints, folder)
    image = verify.check_images(endpoints)[:1]
    file = tf.io.encode_png(image[0]).numpy()
    write_warm_up(
        folder,
        [("serving_default", {"images": image}), ("serve", {"images": image}), ("serve_encoded", {"image_bytes": [file]})],
    )
    return signatures
