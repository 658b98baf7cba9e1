"""What is known of a data set before its images are read. Imports no TensorFlow: `plan` and `validate` use it."""

from collections.abc import Callable
from pathlib import Path

from kerasgreedy.data.folders import describe_folder
from kerasgreedy.data.idx import STEMS, idx_files, idx_folder, idx_shape
from kerasgreedy.data.info import DataInfo, Known, common_size
from kerasgreedy.data.named import FORMS, NAMED, VARIANT_TEST, VARIANT_TRAIN, NamedSet, kind_of
from kerasgreedy.data.prepared import describe_copy, tfds_folders, tfds_missing, tfds_root
from kerasgreedy.errors import DataError, InputError, did_you_mean
from kerasgreedy.files import user_path
from kerasgreedy.spec.recipe import Data


def describe(data: Data, known: Known | None = None) -> DataInfo:
    """Looks a data set up without reading its images.

    Args:
        known: of a folder that a run has begun with.

    Raises:
        DataError: unknown name, missing folder or files, or no prepared copy whose facts could be read.
    """
    kind, rest = kind_of(data.dataset)
    if data.dataset in NAMED:
        return _describe_named(data.dataset, NAMED[data.dataset], data)
    if kind == "folder" and rest:
        return describe_folder(rest, data, known or Known())
    if kind in _FORMS and rest:
        return _FORMS[kind](rest, data)
    hint = did_you_mean(data.dataset, NAMED)
    if kind in ("folder", *_FORMS):
        hint = f"; write {next(form for form in FORMS if form.startswith(kind))}"
    raise DataError(f"received '{data.dataset}'; allowed: {', '.join((*NAMED, *FORMS))}{hint}")


def dataset_at(place: str) -> str:
    """A data set as a recipe writes it, from that or from a path.

    Raises:
        InputError: neither.
    """
    kind, rest = kind_of(place)
    if place in NAMED and user_path(place).exists():
        raise InputError(
            f"--data: '{place}' is a data set's name and a file or folder here; write ./{place} or folder:{place} for that"
        )
    if place in NAMED or (kind in ("folder", *_FORMS) and rest):
        return place
    path = user_path(place)
    if path.exists():
        return f"{'folder' if path.is_dir() else 'npz'}:{place}"
    raise InputError(
        f"--data: received '{place}'; no such folder or file, and no data set of that name{did_you_mean(place, NAMED)}; allowed: "
        f"a path, {', '.join(FORMS)}, or a name of `kerasgreedy data list`"
    )


def inapplicable(data: Data, dataset: str) -> tuple[str, str] | None:
    """The first key of the data section that this kind of data set cannot follow, and why.

    Args:
        dataset: `DataInfo.dataset`, which is not that of the recipe where a caller brings arrays.
    """
    kind, _ = kind_of(dataset)
    if data.test_resize and kind not in ("folder", "tfds"):
        return "test_resize", f"'{dataset}' is held in memory at the network's size and is not cut; leave it out"
    for key, given in (("scale", data.scale != "auto"), ("channel_axis", data.channel_axis is not None)):
        if given and kind not in ("npz", "arrays"):
            return key, f"is for npz:PATH and for arrays of a program's own, and '{dataset}' is neither; leave it out"
    if data.test is not None and kind != "folder":
        return "test", f"is for a folder:PATH without test images of its own; '{dataset}' has some: leave it out"
    if data.corrupt == "skip" and kind != "folder":
        return "corrupt", f"received 'skip', which is for the files of folder:PATH; '{dataset}' has none: leave it out"
    if kind in ("embedded", "folder", "npz"):
        for key, given in (("download", data.download), ("data_dir", data.data_dir is not None)):
            if given:
                return key, f"is for sets that TFDS or idx files hold, and '{dataset}' is none of them; leave it out"
    return None


def here(name: str, data_dir: str | None) -> str:
    """Where a named set is now, for people; empty when it is not here.

    Raises:
        DataError: some of its files are there, but not all.
    """
    entry = NAMED[name]
    if entry.home == "embedded":
        return "in scikit-learn"
    base = "mnist" if entry.home == "variant" else name
    files = idx_files(base, data_dir) if NAMED[base].home == "idx" else None
    if files:
        return str(files["train_images"].parent)
    copies = tfds_folders(str(entry.tfds), data_dir)
    return str(copies[-1]) if copies else ""


def tfds_name(data: Data) -> str | None:
    """The name of the TFDS set that a data set is read from; None where it is read from elsewhere."""
    kind, rest = kind_of(data.dataset)
    if kind in ("idx", "variant"):
        base = "mnist" if kind == "variant" else data.dataset
        return None if idx_files(base, data.data_dir) else NAMED[data.dataset].tfds
    if kind == "tfds":
        return NAMED[rest].tfds if data.dataset in NAMED else rest
    return None


def to_fetch(data: Data) -> str | None:
    """The name of the TFDS set that has to be downloaded first; None where nothing has to be."""
    name = tfds_name(data)
    return name if name is not None and not tfds_folders(name, data.data_dir) else None


def missing(dataset: str, data_dir: str | None, why: str = "") -> DataError:
    """The error for a data set that is not here; says every way to have it.

    Args:
        why: what happened when it was asked for, beginning with ` and`.
    """
    if dataset not in NAMED:
        return tfds_missing(dataset.partition(":")[2], data_dir, why)
    entry = NAMED[dataset]
    base = "mnist" if entry.home == "variant" else dataset
    looked, ways = [f"no prepared TFDS copy of {entry.tfds} below {tfds_root(data_dir)}"], []
    if NAMED[base].home == "idx":
        folder = idx_folder(base, data_dir)
        if folder:
            looked.insert(0, f"no {folder / STEMS['train_images']} (or .gz) nor the three idx files beside it")
        ways.append("put the four idx files into a folder and name it with data.data_dir")
        if entry.idx_dir:
            ways.append("install Debian's package dataset-fashion-mnist")
    ways = [f"`kerasgreedy data prepare {dataset}` or data.download=true (TFDS)", *ways, "name a TFDS copy with data.data_dir"]
    made = " is made from mnist, which" if entry.home == "variant" else ""
    return DataError(f"{dataset}{made} is not here ({'; '.join(looked)}){why}. To have it: {', or '.join(ways)}")


def _describe_named(name: str, entry: NamedSet, data: Data) -> DataInfo:
    if entry.home == "embedded":
        return DataInfo(name, entry.image_shape, entry.names, entry.train, entry.test)
    base = "mnist" if entry.home == "variant" else name
    files = idx_files(base, data.data_dir) if NAMED[base].home == "idx" else None
    copies = [] if files else tfds_folders(str(entry.tfds), data.data_dir)
    if files:
        info = _describe_idx(name, entry, files)
    elif copies:
        info = describe_copy(copies[-1], str(entry.tfds), name)
    elif data.download:
        return DataInfo(name, entry.image_shape, entry.names, entry.train, entry.test)
    else:
        raise missing(name, data.data_dir)
    if entry.home != "variant":
        return info
    total, wanted = info.train_examples + info.test_examples, VARIANT_TRAIN + VARIANT_TEST
    if total < wanted or info.image_shape != entry.image_shape:
        size = "x".join(map(str, info.image_shape))
        raise DataError(f"{name}: needs {wanted:,} images of 28x28x1 of mnist; the copy here has {total:,} of {size}")
    # Which copy of MNIST they are made from makes no difference, so it is not among the facts.
    return DataInfo(name, entry.image_shape, entry.names, VARIANT_TRAIN, VARIANT_TEST)


def _describe_idx(name: str, entry: NamedSet, files: dict[str, Path]) -> DataInfo:
    shapes = {split: idx_shape(files[f"{split}_images"]) for split in ("train", "test")}
    for split, shape in shapes.items():
        if len(shape) != 3:
            raise DataError(f"{files[f'{split}_images']}: received sizes {shape}; allowed: images, height, width")
    train, test = shapes["train"], shapes["test"]
    return DataInfo(name, (*common_size(train[1:], test[1:]), 1), entry.names, train[0], test[0], origin="idx files")


def _describe_tfds(name: str, data: Data) -> DataInfo:
    copies = tfds_folders(name, data.data_dir)
    if copies:
        return describe_copy(copies[-1], name, data.dataset)
    known = next((entry for entry in NAMED.values() if entry.tfds == name), None)
    if not data.download:
        raise tfds_missing(name, data.data_dir)
    if known is None:
        raise DataError(
            f"tfds:{name}: its facts are known only once it is prepared; run `kerasgreedy data prepare tfds:{name}` first"
        )
    return DataInfo(data.dataset, known.image_shape, known.names, known.train, known.test)


def _describe_npz(place: str, data: Data) -> DataInfo:
    from kerasgreedy.data.npz import describe_npz  # NumPy, which the other kinds do without

    return describe_npz(place, data)


_FORMS: dict[str, Callable[[str, Data], DataInfo]] = {"tfds": _describe_tfds, "npz": _describe_npz}
