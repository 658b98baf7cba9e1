"""Strategies: which plan a recipe compiles to."""

from typing import Annotated, TypeAlias

from kerasgreedy.spec.doors import Choice, Names

_HERE = "kerasgreedy.plan.strategies"
STRATEGIES = Names(
    "strategies",
    {
        "greedy": Choice(f"{_HERE}:greedy"),
        "decoupled": Choice(f"{_HERE}:decoupled", freezes=False),
        "end_to_end": Choice(f"{_HERE}:end_to_end", freezes=False),
        "deep_supervision": Choice(f"{_HERE}:deep_supervision", freezes=False),
        "random_features": Choice(f"{_HERE}:random_features"),
        "convex": Choice(f"{_HERE}:convex"),
        "dsd": Choice(f"{_HERE}:dsd", freezes=False),
        "compress": Choice(f"{_HERE}:compress", freezes=False),
    },
)
Strategy: TypeAlias = Annotated[str, STRATEGIES]
