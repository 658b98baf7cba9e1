"""`--data PLACE` of `train` and `plan`: another data set than the recipe's, and a recipe for a folder of one's own."""

import json
from collections.abc import Sequence

from kerasgreedy.data.catalog import dataset_at
from kerasgreedy.data.folders import TEST_SHARE, is_divided
from kerasgreedy.data.named import kind_of
from kerasgreedy.errors import InputError
from kerasgreedy.spec.overrides import parse_override

# The recipe of whoever names a folder and none.
OWN_IMAGES = "own_images"


def with_data(
    place: str | None, recipe: str | None, sets: Sequence[str], own_recipe: str = OWN_IMAGES
) -> tuple[str | None, list[str], str]:
    """Recipe and overrides that train on a data set.

    Args:
        place: as in a recipe, or a path.
        recipe, sets: as given on the command line.
        own_recipe: of a folder for which none is given.

    Returns:
        the recipe (None: the default), the overrides, and what people should know of both.

    Raises:
        InputError: the data set is named twice, or there is no such place.
    """
    if place is None:
        return recipe, list(sets), ""
    keys = [override.keys[override.keys[0] == "recipe" :] for override in map(parse_override, sets)]
    if ("data", "dataset") in keys or ("data",) in keys:
        raise InputError("--data and --set data.dataset both name a data set; leave one out")
    dataset = dataset_at(place)
    own = [f"data.dataset={json.dumps(dataset, ensure_ascii=False)}"]
    kind, rest = kind_of(dataset)
    if kind != "folder" or recipe is not None:
        return recipe, [*own, *sets], ""
    said = f"no --recipe given: taking {own_recipe}"
    if not is_divided(rest) and ("data", "test") not in keys:
        own.append(f"data.test={TEST_SHARE}")
        said += f"; the folder has no test images, so a fifth of each class is kept for testing (data.test={TEST_SHARE})"
    return own_recipe, [*own, *sets], said
