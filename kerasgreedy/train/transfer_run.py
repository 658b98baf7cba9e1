"""New classes on the blocks of a network that is trained already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasgreedy.errors import InputError
from kerasgreedy.files import user_path
from kerasgreedy.graph.architecture import architecture
from kerasgreedy.plan.preparation import prepare
from kerasgreedy.plan.starts import APPLICATION, ENDINGS, start_kind
from kerasgreedy.runs.exported import features_depth, version_at
from kerasgreedy.runs.start_from import stored_info
from kerasgreedy.runs.workdir import Workdir
from kerasgreedy.spec.load import as_plain, load_spec
from kerasgreedy.spec.model import ModelSpec
from kerasgreedy.strict_json import as_json
from kerasgreedy.train.entry_points import Run, train_spec

# A linear classifier of the last block's output, pooled to 2x2.
HEAD: dict[str, Any] = {"hidden_layers": 0, "pool_to": 2}


def transfer_learn(
    source: str | Path,
    spec: str | Path | None = None,
    recipe: str | Path = "transfer",
    blocks: int | None = None,
    overrides: Sequence[str] = (),
    workdir: str | Path | None = None,
    quiet: bool = False,
    devices: str | None = None,
) -> Run:
    """Trains a linear head for other classes on the first blocks of a trained network, which stay as they are.

    The features of blocks that stay are computed once and kept, unless the recipe augments images. To train the blocks on after
    that: a run with `start_from` of this one.

    Args:
        source: a run folder, an exported version, a file of a Keras model, or `keras.applications:NAME`.
        spec: of a Keras model: what its layers are.
        blocks: how many first ones; default: all, or as many as the exported version gives the features of.
        recipe, overrides, workdir, quiet, devices: see `train_spec`; overrides come after what this function sets.

    Raises:
        KerasgreedyError: the source gives no such blocks, or see `train_spec`.
    """
    place, sets = transfer_sets(source, spec, blocks)
    return train_spec(place, recipe, [*sets, *overrides], workdir, quiet=quiet, devices=devices)


def transfer_sets(source: str | Path, spec: str | Path | None, blocks: int | None) -> tuple[Path | str, list[str]]:
    """The spec to train, and the overrides that put its head and its start in place. No TensorFlow."""
    kind = start_kind(str(source))
    if kind is None:
        what = f"a run folder, an exported version, a Keras model ({' or '.join(ENDINGS)}), {APPLICATION}NAME"
        raise InputError(f"SOURCE: received '{source}'; allowed: {what}")
    foreign = kind in ("keras", "application")
    if foreign != (spec is not None):
        raise InputError(
            "--spec: says what the layers of a Keras model are; a run and an export have their own; leave it out"
            if spec is not None
            else f"{source}: a Keras model needs --spec, a spec whose first blocks are its layers"
        )
    shape: Sequence[int] | None = None
    most = None
    if kind == "run":
        folder = Workdir.open(source)
        place: Path | str = folder.network_spec
        shape = prepare(*folder.documents(), stored_info(folder), begins=False).architecture.input_shape
    elif kind == "export":
        version = version_at(source)
        place = version / "assets" / "spec.yaml"
        arch = architecture(load_spec(place).value)
        shape, most = arch.input_shape, features_depth(version, len(arch.blocks))
    else:
        assert spec is not None
        place = spec
    document = load_spec(place).value
    there = sum(block.repeat for block in document.blocks)
    count = blocks or most or there
    if count > (most or there):
        raise InputError(f"--blocks: received {count}; {source} gives {most or there}")
    start = str(source) if kind == "application" else str(user_path(source).absolute())
    sets = [
        f"spec.blocks={as_json(first_blocks(document, count))}",
        f"spec.auxiliary_head={as_json(HEAD)}",
        "spec.final_head=null",
        "spec.classes=null",
        f"recipe.start_from={as_json(start)}",
        f"recipe.start_blocks={count}",
        "recipe.strategy=end_to_end",
    ]
    if shape:
        sets += [f"spec.input_shape={as_json(list(shape))}", "recipe.data.image_size=null"]
    return place, sets


def first_blocks(spec: ModelSpec, count: int) -> list[dict[str, Any]]:
    """So many first blocks of a spec as plain data, without heads of their own."""
    found: list[dict[str, Any]] = []
    for block in as_plain(spec)["blocks"]:
        left = count - sum(each.get("repeat", 1) for each in found)
        if left <= 0:
            break
        kept = {key: value for key, value in block.items() if key != "head"}
        if block.get("repeat", 1) > left:
            kept["repeat"] = left
            if left == 1 and "name" in kept:
                kept["name"] += "_1"  # as the first of several is called
        found.append(kept)
    return found
