"""What makes the code blocks of the documents small: narrow networks, short trainings, few pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasgreedy.spec.load import load

SMALL = ("data.train_examples=60", "data.test_examples=20", "training.batch_size=16")
WIDTH, BLOCKS = 4, 2


def narrow(layers: Any, width: int) -> Any:
    """Layers with at most so many filters or units."""
    if isinstance(layers, dict):
        return {key: min(value, width) if key in ("conv", "dense") else narrow(value, width) for key, value in layers.items()}
    return [narrow(layer, width) for layer in layers] if isinstance(layers, list) else layers


def small_sets(
    spec: str, recipe: str | None, sets: Sequence[str], width: int | None = WIDTH, data: bool = True, most: int = BLOCKS
) -> list[str]:
    """`--set` texts that make a run take seconds; reads spec and recipe with the page's own `sets`, which must fit.

    Args:
        width: at most so many filters, and one hidden layer in a head; None: the network stays as the page says.
        data: whether the run opens the recipe's data set.
        most: only so many blocks, the first ones.
    """
    network, how = (document.value.model_dump(mode="json", exclude_unset=True) for document in load(spec, recipe, sets))
    texts = []
    if data and isinstance(how["data"].get("validation"), int) and how["data"]["validation"]:
        texts.append("data.validation=6")
    for key in ("blocks", "final_head") if width else ():
        whole = network.get(key, {})
        less = narrow(whole[:most] if key == "blocks" else whole, width)
        if less != whole:
            texts.append(f"{key}={json.dumps(less)}")
    if width and network.get("auxiliary_head", {}).get("hidden_layers", 0) > 1:
        texts.append("auxiliary_head.hidden_layers=1")
    epochs = 1
    if how["training"].get("solver", {}).get("name") == "alternation":
        epochs = 2
        texts.append("training.solver.warm_up_epochs=1")
    if "prune" in how:
        texts += ["prune.keep=2"] * isinstance(how["prune"].get("keep"), int)
        texts += ["prune.fine_tune.epochs=1"] * ("fine_tune" in how["prune"])
        texts += ["replace_head.head.width=2"] * ("replace_head" in how)
    return [*texts, *(SMALL if data else SMALL[2:]), f"training.epochs={epochs}"]


def picture(label: int, side: int = 32) -> np.ndarray:
    """Noise about a shade of the class, in colour."""
    noise = np.random.default_rng(label).normal(25.5 * label, 30, (side, side, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def png(place: str | Path) -> bool:
    """Whether a file is there and a PNG."""
    return Path(place).read_bytes().startswith(b"\x89PNG")


def stand_in_folder(place: Path, classes: Sequence[str] = "0123456789", train: int = 9) -> Path:
    """Pictures in `train/<class>` and `test/<class>`, as JPEG."""
    for split, count in (("train", train), ("test", 3)):
        for label, name in enumerate(classes):
            (place / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(picture(label)).save(place / split / name / f"{number}.jpg")
    return place


def stand_in_copy(place: Path, name: str) -> None:
    """A prepared TFDS copy of pictures of ten classes."""
    import tensorflow_datasets as tfds

    def info(self):
        features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": tfds.features.ClassLabel(num_classes=10)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def examples(self, count):
        for index in range(count):
            yield index, {"image": picture(index % 10), "label": index % 10}

    own = {
        "VERSION": tfds.core.Version("3.0.2"),
        "_info": info,
        "_split_generators": lambda self, _: {"train": self._generate_examples(200), "test": self._generate_examples(30)},
        "_generate_examples": examples,
        "__module__": __name__,
    }
    with tfds.core.registered.skip_registration():  # TFDS's own set of that name may be known already
        builder = type(name.title(), (tfds.core.GeneratorBasedBuilder,), own)
    builder(data_dir=str(place)).download_and_prepare()
