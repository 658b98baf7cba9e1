"""What a recipe says about pruning."""

from typing import Literal, TypeAlias, get_args

Criterion: TypeAlias = Literal[
    "taylor_activation",
    "taylor_weight",
    "magnitude_l1",
    "magnitude_l2",
    "batch_norm_scale",
    "mean_activation",
    "apoz",
    "random",
]
CRITERION_NAMES: tuple[Criterion, ...] = get_args(Criterion)
