"""What a frontier sweeps, and where its runs are."""

import math
from dataclasses import dataclass
from pathlib import Path

from kerasgreedy.errors import InputError
from kerasgreedy.spec.recipe import Recipe
from kerasgreedy.studies.sweep_range import SPACED, log_spaced


@dataclass(frozen=True)
class Frontier:
    """What is swept.

    Attributes:
        spec, recipe: as the user names them; the recipe's first regularizer has the weight that is swept.
        alphas: rising.
        seeds: each has its own sequence.
        warm_epochs: of all alphas but the first, which start from the network before; None: as the recipe says.
        narrower: shares of the filters of networks that are trained plainly, without penalty, beside the sweep.
        references: specs of others that are.
        plain_epochs: of these; None: as many as the last net of a sequence has had in all.
        overrides: `key.key=value` texts for both documents.
    """

    spec: str
    recipe: str
    alphas: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    warm_epochs: int | None = None
    narrower: tuple[float, ...] = ()
    references: tuple[str, ...] = ()
    plain_epochs: int | None = None
    overrides: tuple[str, ...] = ()


def alphas_of(text: str) -> tuple[float, ...]:
    """`1e-5:1e-3:log8`, eight of equal ratios, or `1e-5,1e-4`, rising.

    Raises:
        InputError: it is neither.
    """
    try:
        if ":" in text:
            spaced = SPACED.fullmatch(text.strip())
            if not spaced:
                raise ValueError
            return tuple(map(float, log_spaced("--alpha", *spaced.groups())))
        found = tuple(float(part) for part in text.split(","))
        if not found or any(not 0 < value < math.inf for value in found) or list(found) != sorted(set(found)):
            raise ValueError
        return found
    except ValueError:
        message = (
            f"--alpha: received '{text}'; allowed: first:last:logN with N from 2 (1e-5:1e-3:log8), or rising numbers (1e-5,1e-4)"
        )
        raise InputError(message) from None


def run_name(alpha: float, seed: int) -> str:
    """The folder of an alpha."""
    return f"alpha_{alpha!r}_seed_{seed}"


def plain_specs(study: Frontier, place: Path) -> dict[str, str]:
    """Name -> spec of each network that is trained plainly."""
    found = {f"narrower_{share!r}": str(place / f"narrower_{share!r}.yaml") for share in study.narrower}
    return found | {f"reference_{Path(spec).stem}": spec for spec in study.references}


def plain_epochs(study: Frontier, recipe: Recipe) -> int:
    """Of plain networks: as asked for, or those that the net of the last alpha has had, with the alphas before it."""
    if study.plain_epochs:
        return study.plain_epochs
    first, later = recipe.training.epochs, study.warm_epochs or recipe.training.epochs
    tuned = recipe.threshold.tuning(recipe.training).epochs if recipe.threshold and recipe.threshold.fine_tune else 0
    return first + (len(study.alphas) - 1) * later + tuned
