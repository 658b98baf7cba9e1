"""Thresholds in a plan: whose norms they take, and which one a budget chooses."""

import numpy as np
import pytest
from conftest import TINY_RECIPE, recipe_of, spec_of

from kerasgreedy.errors import PlanError
from kerasgreedy.plan.compile import compile_plan
from kerasgreedy.plan.threshold_plan import ThresholdAction
from kerasgreedy.train.performing_threshold import _Thresholding

SPEC = "name: s\nblocks: [{conv: 4, kernel_size: 5}, {conv: 4}]\nfinal_head: {layers: [{global_avg_pool: true}]}\n"
NESTED, GROUP = "{name: nested_group_lasso, weight: 0.1", "{name: group_lasso, weight: 0.1"


def thresholds(*sets):
    spec = spec_of(SPEC).value.model_copy(update={"input_shape": [8, 8, 1], "classes": 10})
    return [s for s in compile_plan(spec, recipe_of(TINY_RECIPE, *sets).value) if isinstance(s, ThresholdAction)]


def test_the_norms_are_those_of_the_phase_that_it_follows():
    """Not of the recipe's training, where a phase says otherwise: a side that its penalty made zero would stay."""
    first, second = f"{NESTED}, norm: normalized}}", f"{GROUP}, of: hidden}}"
    phases = f"{{block_1: {{regularizers: [{first}]}}, block_2: {{regularizers: [{second}]}}}}"
    one, two = thresholds("strategy=greedy", "threshold={tau: 0}", f"phases={phases}")
    assert (one.measure.groups, one.measure.norm) == ("half_rings", "normalized")
    assert (two.measure.groups, two.measure.norm) == ("kernel", "l2")


@pytest.mark.parametrize(
    ("penalties", "more", "message"),
    [
        (
            f"{NESTED}, of: ['block_1/*']}}, {GROUP}, of: ['block_2/*']}}",
            "",
            r"say \['block_1/\*'\] and \['block_2/\*'\].*say threshold.of",
        ),
        (f"{NESTED}}}, {GROUP}}}", "", "say 'half_rings' and 'kernel'.*say threshold.groups"),
        (f"{NESTED}}}, {NESTED}, norm: linf}}", "of: hidden", "say 'l2' and 'linf'.*say threshold.norm"),
    ],
)
def test_of_several_penalties_none_is_taken_silently(penalties, more, message):
    with pytest.raises(PlanError, match=message):
        thresholds("strategy=end_to_end", f"training.regularizers=[{penalties}]", f"threshold={{tau: 0, {more}}}")


def test_what_is_said_is_enough():
    penalties = f"training.regularizers=[{NESTED}, of: ['block_1/*']}}, {GROUP}, of: ['block_2/*']}}, {{name: l2, weight: 0.1}}]"
    (action,) = thresholds("strategy=end_to_end", penalties, "threshold={tau: 0, of: hidden, groups: half_rings}")
    assert action.layers == ("block_1/conv_1", "block_2/conv_1") and action.measure.groups == "half_rings"


@pytest.mark.parametrize("seed", range(20))
def test_a_budget_takes_the_nearest_where_costs_rise_and_fall(seed):
    """Costs of 60 thresholds that fall on the whole, with steps back, as multiples of `round_to` have."""
    rng = np.random.default_rng(seed)
    costs = np.maximum(1, np.linspace(1000, 5, 60) + rng.integers(-120, 120, 60)).astype(int)
    costs[-1] = 1
    found = object.__new__(_Thresholding)
    found.all_norms, found._costs = np.arange(60.0), {}
    found._pattern, found._cost = (lambda tau: int(tau)), (lambda place: int(costs[place]))
    limit = int(rng.integers(50, 900))
    found.arch = found.action = None
    chosen = costs[int(found._within(limit))]
    within = costs[costs <= limit].max()
    assert chosen <= limit and (chosen == within or chosen >= 0.99 * limit)
