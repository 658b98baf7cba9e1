"""Model specs for benchmarks: shipped ones, narrower ones, and ones as deep as wanted; what a recipe is told."""

from typing import Any

from kerasgreedy.graph.architecture import Architecture, architecture
from kerasgreedy.spec.load import load_spec
from kerasgreedy.spec.model import ModelSpec

CLASSES = 10
RECIPE = "cifar10_greedy"


def open_spec(place: str, width: int | None = None) -> dict[str, Any]:
    """A spec as plain data, which is how workers receive it.

    Args:
        place: a file, or the name of a shipped spec.
        width: of the first block; all other convolutions shrink or grow in proportion. Default: as written.
    """
    overrides = [] if width is None else narrower(place, width)
    return load_spec(place, overrides).value.model_dump(mode="json", exclude_unset=True)


def narrower(place: str, width: int) -> list[str]:
    """The `--set` texts that scale the convolutions of a spec so that the first has `width` filters."""
    blocks = load_spec(place).value.blocks
    first = blocks[0].layers[0].conv
    texts = []
    for index, block in enumerate(blocks):
        if len(block.layers) != 1 or not hasattr(block.layers[0], "conv"):
            raise SystemExit(f"{place}: only blocks of one convolution can be scaled; leave --width out")
        texts.append(f"blocks.{index}.conv={max(1, round(block.layers[0].conv * width / first))}")
    return texts


def deep_spec(layers: int, width: int, size: int, k: int) -> dict[str, Any]:
    """Blocks of equal width and resolution: SimCNN without downsampling, as deep as wanted (greedy, sections 3 and 4)."""
    norm = k > 1
    return {
        "name": f"simcnn_k{k}_deep{layers}",
        "input_shape": [size, size, 3],
        "block_defaults": {"batch_norm": norm},
        "blocks": [{"conv": width} for _ in range(layers)],
        "auxiliary_head": {"hidden_layers": k - 1, "width": "2x", "batch_norm": norm} if norm else {"pool_to": 2},
    }


def architecture_of(spec: dict[str, Any], classes: int = CLASSES) -> Architecture:
    """Shapes and costs of a spec that came as plain data."""
    return architecture(resolved(spec, classes))


def resolved(spec: dict[str, Any], classes: int = CLASSES) -> ModelSpec:
    """A spec that came as plain data, with its input shape and classes filled in."""
    model = ModelSpec.model_validate(spec)
    shape = architecture(model, None, classes).input_shape
    return model.model_copy(update={"input_shape": list(shape), "classes": classes})


def recipe_settings(precision: str = "float32", accumulation: int = 1, views: int | None = None) -> list[str]:
    """`--set` texts for a recipe.

    Args:
        views: augmented views of every image, drawn once; the features of the frozen prefix are then cached. Default: every
            epoch draws anew and computes the prefix.
    """
    texts = [f"precision={precision}", f"training.accumulation={accumulation}"]
    return [*texts, f"data.augment_views={views}"] if views else texts
