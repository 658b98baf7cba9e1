"""How many filters go, counted by hand; and specs that are written anew."""

import random
from itertools import pairwise

import pytest
from conftest import TINY_RECIPE, recipe_of, spec_of

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import Filter, find_coupling, kept
from kerasgreedy.graph.rewriting import resized, without
from kerasgreedy.graph.tree import walk
from kerasgreedy.plan.amounts import AmountError, Ranking, Start, choose, deployed_cost, selectable, why_nothing
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.load import dump, load_spec, shipped_files
from kerasgreedy.spec.pruning_settings import Prune

TOP = "name: s\ninput_shape: [8, 8, 3]\nclasses: 4\n"
# 3x3x3x8 = 216, 3x3x8x12 = 864 weights, each used at 64 places; the last head averages to 2x2: 48 x 4.
TWO = TOP + "blocks: [{conv: 8}, {conv: 12}]\n"
TWO_COST = 64 * (216 + 864) + 192
COUPLED = TOP + "blocks: [{conv: 8}, {residual: [{conv: 5}, {conv: 8, activation: linear}]}]\n"
PAD = TOP + "blocks: [{conv: 8}, {residual: [{conv: 12, activation: linear}], shortcut: pad}]\n"
GROUPED = TOP + "blocks: [{conv: 8}, {conv: 12, groups: 2}]\n"
DEPTHWISE = TOP + "blocks: [{conv: 6}, {conv: 12, groups: 6}]\n"
ALIKE = {
    "two": TWO,
    "coupled": COUPLED,
    "grouped": GROUPED,
    "depthwise": DEPTHWISE,
    "downsampled": TOP + "blocks: [{conv: 8}, {conv: 8, downsample: invertible}, [{flatten: true}, {dense: 7}]]\n",
    "branches": TOP + "blocks: [{branches: [[{conv: 4}], [{conv: 5}, {conv: 3}], []]}, {conv: 6}]\n",
}


class Net:
    """A spec with what `choose` takes, and scores that rise with a filter's position unless given."""

    def __init__(self, text, scores=None, across="layer", targets=None, touches=None, final=True):
        self.spec = spec_of(text).value
        self.arch = architecture(self.spec)
        self.coupling = find_coupling(self.arch)
        blocks = [block.name for block in self.arch.blocks]
        self.groups = selectable(self.coupling, targets or blocks, touches or [*self.arch.components])
        self.scores = scores or {group.name: [float(i) for i in range(len(group.items))] for group in self.groups}
        self.ranking = Ranking(self.coupling, self.groups, self.scores, across, final)
        self.depth = len(self.arch.blocks)
        self.counted = [*blocks, self.arch.heads[-1].name]

    def choose(self, after=1.0, start=None, accuracy=None, **settings):
        return choose(self.spec, self.coupling, self.ranking, Prune(**settings), self.counted, after, start, accuracy)

    def left(self, removed):
        """Layer -> positions of its filters that stay."""
        places = [place for group in self.groups for place in group.places]
        return {"/".join(place): kept(self.coupling.outputs[place], removed) for place in places}

    def counts(self, removed):
        return {name: len(positions) for name, positions in self.left(removed).items()}

    def cost(self, removed):
        return deployed_cost(architecture(without(self.spec, self.coupling, removed)), self.depth)


@pytest.mark.parametrize(
    ("keep", "first", "second"),
    [(0.5, 4, 6), (0.75, 6, 9), (0.3, 2, 4), (0.01, 1, 1), (0.99, 8, 12), (0.0625, 1, 1), (0.45, 4, 5)],
)
def test_a_share_of_every_layer_halves_upwards_and_one_filter_at_least(keep, first, second):
    """0.3 x 8 = 2.4 and 0.3 x 12 = 3.6; 0.0625 x 8 = 0.5; 0.45 x 8 = 3.6 and 0.45 x 12 = 5.4."""
    net = Net(TWO)
    assert net.counts(net.choose(keep=keep)) == {"block_1/conv_1": first, "block_2/conv_1": second}


def test_halves_go_upwards_whatever_the_rounding_of_floats():
    """1 - 0.55 = 0.4499..., yet 0.45 x 10 = 4.5 makes 5."""
    net = Net(TOP + "blocks: [{conv: 10}]\n")
    for tenths in range(1, 20):
        assert net.counts(net.choose(keep=tenths / 20)) == {"block_1/conv_1": (tenths + 1) // 2}


def test_a_number_of_filters_leaves_smaller_layers_alone():
    net = Net(TWO)
    assert net.counts(net.choose(keep=5)) == {"block_1/conv_1": 5, "block_2/conv_1": 5}
    assert net.counts(net.choose(keep=9)) == {"block_1/conv_1": 8, "block_2/conv_1": 9}
    assert net.choose(keep=12) == frozenset()
    error = why_nothing(Prune(keep=12), net.coupling, net.groups, Start.of(net.arch, net.groups, net.counted))
    assert str(error) == "prune.keep: received 12; no layer that is pruned has more than 12 filters; allowed: 1 to 11"


def test_the_weakest_go():
    scores = {"block_1/conv_1": [5, 1, 4, 2, 8, 7, 6, 3], "block_2/conv_1": list(range(12, 0, -1))}
    net = Net(TWO, scores)
    assert net.left(net.choose(keep=0.5)) == {"block_1/conv_1": [0, 4, 5, 6], "block_2/conv_1": [0, 1, 2, 3, 4, 5]}


def test_global_ranking_takes_the_weakest_of_all_and_one_stays_everywhere():
    net = Net(TWO, {"block_1/conv_1": [1.0] * 8, "block_2/conv_1": [2.0] * 12}, "global")
    assert net.counts(net.choose(keep=0.75, ranking="global")) == {"block_1/conv_1": 3, "block_2/conv_1": 12}
    # 10 of 20 go: all of block_1 but one, and 3 of block_2.
    assert net.counts(net.choose(keep=0.5, ranking="global")) == {"block_1/conv_1": 1, "block_2/conv_1": 9}
    assert net.counts(net.ranking.first(net.ranking.most)) == {"block_1/conv_1": 1, "block_2/conv_1": 1}


@pytest.mark.parametrize("across", ["layer", "global"])
@pytest.mark.parametrize("name", ALIKE)
def test_removals_are_nested_and_leave_a_filter_in_every_layer(name, across):
    net = Net(ALIKE[name], across=across)
    firsts = [net.ranking.first(count) for count in range(net.ranking.most + 1)]
    shares = [net.ranking.share(step / 40) for step in range(41)]
    for removals in (firsts, shares):
        assert removals[0] == frozenset()
        assert all(one <= two for one, two in pairwise(removals))
    assert [len(removed) for removed in firsts] == list(range(net.ranking.most + 1))
    assert min(net.counts(firsts[-1]).values()) >= 1 <= min(net.counts(shares[-1]).values())
    without(net.spec, net.coupling, firsts[-1])


@pytest.mark.parametrize("across", ["layer", "global"])
@pytest.mark.parametrize("budget", [0.2, 0.5, 0.9, 0.999, 30_000, TWO_COST - 1])
@pytest.mark.parametrize("name", ALIKE)
def test_a_budget_is_met_and_one_filter_less_would_exceed_it(name, budget, across):
    net = Net(ALIKE[name], across=across)
    whole = net.cost(frozenset())
    limit = budget if isinstance(budget, int) else budget * whole
    if limit >= whole:
        assert net.choose(multiply_adds=budget, ranking=across) == frozenset()
        return
    removed = net.choose(multiply_adds=budget, ranking=across)
    assert removed == net.ranking.first(len(removed))
    assert net.cost(removed) <= limit < net.cost(net.ranking.first(len(removed) - 1))


def test_costs_by_hand():
    net = Net(TWO)
    assert net.cost(frozenset()) == TWO_COST == 69_312
    # Half of both: 64 x (27 x 4 + 36 x 6) + 24 x 4.
    assert net.cost(net.ranking.share(0.5)) == 64 * (108 + 216) + 96 == 20_832
    # Layers take turns by share: of 20 filters ten go, four and six.
    assert net.counts(net.ranking.first(10)) == {"block_1/conv_1": 4, "block_2/conv_1": 6}
    assert deployed_cost(net.arch, 1) == 64 * 216 + 8 * 4 * 4


def test_a_budget_out_of_reach_names_the_nearest():
    net = Net(TWO)
    least = 64 * (27 + 9) + 16  # one filter in each
    with pytest.raises(AmountError, match=rf"received 2,000; .*nearest: {least:,} multiply-adds, 0.034 of 69,312"):
        net.choose(multiply_adds=2000)
    with pytest.raises(AmountError, match="received 0.01"):
        net.choose(multiply_adds=0.01)
    assert net.cost(net.choose(multiply_adds=0.034)) == net.cost(net.choose(multiply_adds=least)) == least


def test_an_accuracy_limit_goes_as_far_as_it_may():
    net = Net(TOP + "blocks: [{conv: 20}]\n")
    asked = []

    def accuracy(labels):
        """A point for each filter: 20 filters are right on all 100 images, 19 on 99."""
        asked.append(len(labels))
        return 1 - len(labels) / 100

    assert len(net.choose(accuracy_drop=0.055, accuracy=accuracy)) == 5
    assert asked == [0, 1, 2, 3, 4, 5, 6]
    assert len(net.choose(accuracy_drop=0.5, accuracy=accuracy)) == 19  # one stays
    assert net.choose(accuracy_drop=0.005, accuracy=accuracy) == frozenset()


def rounds_of(text, across="layer", **settings):
    """The filters of every layer after each round, each round on the network that the one before left."""
    net, seen = Net(text, across=across), []
    start = Start.of(net.arch, net.groups, net.counted)
    for after in Prune(**settings).progress:
        last = net, net.choose(after, start, ranking=across, **settings)
        seen.append(net.counts(last[1]))
        net = Net(dump(without(net.spec, net.coupling, last[1])), across=across)
    return seen, last


@pytest.mark.parametrize("rounds", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("text", [TWO, TOP + "blocks: [{conv: 3}, {conv: 5}]\n"])
@pytest.mark.parametrize("keep", [0.5, 0.3, 0.85, 2, 4])
def test_rounds_end_where_one_round_does(text, keep, rounds):
    """Layers of 3 filters too, from which no tenth of the way takes a whole filter."""
    seen, _ = rounds_of(text, keep=keep, rounds=rounds)
    assert len(seen) == rounds
    net = Net(text)
    assert seen[-1] == net.counts(net.choose(keep=keep))
    for name in seen[0]:
        sizes = [counts[name] for counts in seen]
        assert sizes == sorted(sizes, reverse=True)


# What can be emptied while its layers keep filters: channels that only one side of a padded sum has, beside those that are held.
EMPTIED = {
    **ALIKE,
    "pad": TOP + "blocks: [{conv: 8}, {residual: [{conv: 32, activation: linear}], shortcut: pad}]\n",
    "on_the_input": TOP + "blocks: [{residual: [{conv: 3, activation: linear}]}, {conv: 9},\n"
    "         {residual: [{conv: 20, activation: linear}], shortcut: pad}]\n",
}


@pytest.mark.parametrize("across", ["layer", "global"])
@pytest.mark.parametrize("name", EMPTIED)
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 0.8])
def test_a_share_over_rounds_leaves_what_one_round_leaves(name, keep, across):
    """Scores by chance, which a filter keeps from round to round; groups may be emptied on the way."""

    def scored(net, drawn, final=True):
        scores = {group.name: [min(drawn[filter_] for filter_ in item.filters) for item in group.items] for group in net.groups}
        return Net(dump(net.spec), scores, across, final=final)

    def drawn_of(net):
        rng = random.Random(0)
        filters = [filter_ for group in net.groups for item in group.items for filter_ in item.filters]
        return {filter_: rng.random() for filter_ in filters}

    whole = Net(EMPTIED[name], across=across)
    one = scored(whole, drawn_of(whole))
    wanted = one.counts(one.choose(keep=keep))
    start = Start.of(whole.arch, whole.groups, whole.counted)
    for rounds in (2, 4, 9):
        net, drawn = whole, drawn_of(whole)
        for number in range(1, rounds + 1):
            net = scored(net, drawn, number == rounds)
            removed = net.choose(number / rounds, start, keep=keep)
            left = {place: kept(labels, removed) for place, labels in net.coupling.outputs.items()}
            drawn = {Filter(place, i): drawn[Filter(place, old)] for place, stay in left.items() for i, old in enumerate(stay)
                     if Filter(place, old) in drawn}  # fmt: skip
            net = Net(dump(without(net.spec, net.coupling, removed)), across=across)
        sizes = {place[0] + "/" + place[1]: len(labels) for place, labels in net.coupling.outputs.items()}
        found = {place: sizes[place] for place in wanted}
        assert sum(found.values()) == sum(wanted.values()), f"{rounds} rounds"
        # In groups two channels stay until the last round: globally, others go meanwhile.
        assert found == wanted or (name, across) == ("grouped", "global"), f"{rounds} rounds"


def test_rounds_go_in_equal_parts():
    """From 8 to 4 and from 12 to 6 in four rounds; from 12 to 3 in three, where 8 go to 3 by 6.33 and 4.67."""
    assert rounds_of(TWO, keep=0.5, rounds=4)[0] == [{"block_1/conv_1": 8 - i, "block_2/conv_1": round(12 - 1.5 * i + 0.01)}
                                                    for i in range(1, 5)]  # fmt: skip
    assert rounds_of(TWO, keep=3, rounds=3)[0] == [
        {"block_1/conv_1": 6, "block_2/conv_1": 9},
        {"block_1/conv_1": 5, "block_2/conv_1": 6},
        {"block_1/conv_1": 3, "block_2/conv_1": 3},
    ]


@pytest.mark.parametrize("across", ["layer", "global"])
@pytest.mark.parametrize("rounds", [2, 3, 5])
@pytest.mark.parametrize("budget", [0.4, 0.75, 20_000])
def test_rounds_meet_the_budget_of_the_start(budget, rounds, across):
    """Not that of what the round before left, which was a little below its own."""
    _, (net, removed) = rounds_of(TWO, across, multiply_adds=budget, rounds=rounds)
    limit = budget if isinstance(budget, int) else budget * TWO_COST
    assert net.cost(removed) <= limit < net.cost(net.ranking.first(len(removed) - 1))


def test_global_rounds_count_all_filters_of_the_start():
    """20 filters in five rounds to 10."""
    seen, _ = rounds_of(TWO, "global", keep=0.5, rounds=5)
    assert [sum(counts.values()) for counts in seen] == [18, 16, 14, 12, 10]


def test_schedules_as_rounds():
    """TFMOT's polynomial with power 3 from 0 to 0.5 over four rounds: 0.5 (1 - (1 - t/4)^3) = .2891, .4375, .4922, .5."""
    decay = {"name": "polynomial_decay", "initial_sparsity": 0, "final_sparsity": 0.5, "begin_step": 0, "end_step": 4}
    settings = Prune(schedule={**decay, "frequency": 1})
    assert settings.progress == pytest.approx([0.578125, 0.875, 0.984375, 1])
    assert settings.share_kept == 0.5
    seen, _ = rounds_of(TOP + "blocks: [{conv: 64}]\n", schedule={**decay, "frequency": 1})
    assert [counts["block_1/conv_1"] for counts in seen] == [46, 36, 33, 32]  # 64 - 18.5 = 45.5, 64 - 31.5 = 32.5: halves stay
    every_second = Prune(schedule={**decay, "frequency": 2})
    assert every_second.progress == pytest.approx([0.875, 1])
    constant = Prune(schedule={"name": "constant_sparsity", "target_sparsity": 0.25, "begin_step": 0})
    assert constant.progress == (1,) and constant.share_kept == 0.75
    with pytest.raises(ValueError, match="received 4; the last active step would be 0"):
        Prune(schedule=decay)
    with pytest.raises(ValueError, match="received 0; nothing would be pruned"):
        Prune(schedule={"name": "constant_sparsity", "target_sparsity": 0.0, "begin_step": 0})


def test_filters_that_are_summed_go_together():
    net = Net(COUPLED)
    assert [(group.name, len(group.items)) for group in net.groups] == [("block_1/conv_1", 8), ("block_2/conv_1", 5)]
    left = net.left(net.choose(keep=0.5))
    assert left == {"block_1/conv_1": [4, 5, 6, 7], "block_2/conv_2": [4, 5, 6, 7], "block_2/conv_1": [2, 3, 4]}


def test_a_frozen_block_holds_what_is_summed_with_it():
    net = Net(COUPLED, targets=["block_2"], touches=["block_2", "head_2"])
    assert [group.name for group in net.groups] == ["block_2/conv_1"]
    with pytest.raises(
        AmountError, match=r"prune.components: block_2: .* summed with those of block_1 and cannot be removed alone"
    ):
        Net(COUPLED.replace("{conv: 5}, ", ""), targets=["block_2"], touches=["block_2", "head_2"])
    first = Net(COUPLED, targets=["block_1"], touches=["block_1", "head_1", "block_2", "head_2"])
    assert first.counts(first.choose(keep=2)) == {"block_1/conv_1": 2, "block_2/conv_2": 2}


def test_a_padded_shortcut_ties_the_channels_that_it_has():
    """Channels 0 to 7 are summed, 8 to 11 are the second layer's alone."""
    net = Net(PAD)
    assert [(group.name, len(group.items)) for group in net.groups] == [("block_1/conv_1", 8), ("block_2/conv_1", 4)]
    assert net.left(net.choose(keep=0.5)) == {"block_1/conv_1": [4, 5, 6, 7], "block_2/conv_1": [4, 5, 6, 7, 10, 11]}
    assert net.counts(net.choose(keep=6)) == {"block_1/conv_1": 6, "block_2/conv_1": 10}  # of each set that goes together
    own = Net(PAD, targets=["block_2"], touches=["block_2", "head_2"])
    assert [(len(group.items), group.held) for group in own.groups] == [(4, 8)]
    assert own.counts(own.choose(keep=10)) == {"block_2/conv_1": 10}
    with pytest.raises(AmountError, match="prune.keep: 8 of the 12 filters of block_2/conv_1 cannot go; allowed: 8 or more"):
        own.choose(keep=7)


def test_grouped_convolutions_lose_a_filter_in_every_group():
    """Two groups: 8 filters are 4 items, 12 are 6. A number counts filters, and goes up where it cannot be divided."""
    net = Net(GROUPED)
    assert net.left(net.choose(keep=0.5)) == {"block_1/conv_1": [2, 3, 6, 7], "block_2/conv_1": [3, 4, 5, 9, 10, 11]}
    assert net.counts(net.choose(keep=6)) == {"block_1/conv_1": 6, "block_2/conv_1": 6}
    assert net.counts(net.choose(keep=7)) == {"block_1/conv_1": 8, "block_2/conv_1": 8}
    assert net.choose(keep=12) == frozenset()


def test_a_depthwise_group_goes_with_its_input():
    net = Net(DEPTHWISE)
    removed = net.choose(keep=0.5)
    assert net.left(removed) == {"block_1/conv_1": [3, 4, 5], "block_2/conv_1": [6, 7, 8, 9, 10, 11]}
    assert net.counts(net.choose(keep=2)) == {"block_1/conv_1": 2, "block_2/conv_1": 4}
    smaller = architecture(without(net.spec, net.coupling, removed))
    assert [node.layer.groups for node in smaller.blocks[1].nodes if isinstance(node.layer, L.Conv)] == [3]


@pytest.mark.parametrize("name", sorted(shipped_files("spec")))
def test_a_spec_written_anew_is_the_same_network(name):
    spec = load_spec(name).value
    nominal = spec.nominal.input_shape if spec.nominal else None
    spec = spec.model_copy(update={"input_shape": spec.input_shape or nominal or [32, 32, 3], "classes": spec.classes or 10})
    before, written = architecture(spec), resized(spec, {})
    after = architecture(written)
    assert [c.name for c in after.components.values()] == [c.name for c in before.components.values()]
    for one, two in zip(before.components.values(), after.components.values(), strict=True):
        assert (two.input_shape, two.output_shape) == (one.input_shape, one.output_shape)
        assert (two.parameters, two.multiply_adds) == (one.parameters, one.multiply_adds)
        assert [(n.name, type(n.layer), n.output_shape) for n in walk(two.nodes)] == [
            (n.name, type(n.layer), n.output_shape) for n in walk(one.nodes)
        ]
    assert architecture(spec_of(dump(written)).value) == after
    assert resized(written, {}) == written


def test_what_is_left_unsaid_is_written_out():
    text = TOP + """blocks:
  - {name: twin, repeat: 2, layers: [{conv: 8}]}
  - {residual: [{conv: 6}, {conv: 12, activation: linear}], shortcut: projection}
auxiliary_head: {hidden_layers: 2, width: 2x}
"""  # fmt: skip
    written = resized(spec_of(text).value, {("twin_1", "conv_1"): 5, ("head_2", "conv_2"): 3})
    assert [block.name for block in written.blocks] == [
        "twin_1",
        "twin_2",
        None,
    ] and "auxiliary_head" not in written.model_fields_set
    assert [block.head.width for block in written.blocks] == [16, [16, 3], 24]
    arch = architecture(written)
    assert [component.output_shape[-1] for component in arch.blocks] == [5, 8, 12]
    assert [component.output_shape[-1] for component in arch.heads] == [4, 4, 4]


@pytest.mark.parametrize("head", ["{hidden_layers: 1, width: 3}", "{layers: [{conv: 5}, {global_avg_pool: true}]}"])
def test_a_recipe_that_is_written_keeps_what_its_new_head_leaves_out(head):
    recipe = recipe_of(TINY_RECIPE + f"replace_head: {{head: {head}}}\n").value
    again = recipe_of(dump(recipe)).value
    assert again.replace_head == recipe.replace_head
    assert again.replace_head.head.model_fields_set == recipe.replace_head.head.model_fields_set


def test_a_projection_stays_when_widths_agree_by_chance():
    text = TOP + "blocks: [{conv: 8}, {residual: [{conv: 12, activation: linear}], shortcut: projection}]\n"
    spec = spec_of(text).value
    coupling = find_coupling(architecture(spec))
    removed = coupling.labels({"block_2/conv_1": [0, 1, 2, 3]})  # 8 filters left, as many as come in
    written = without(spec, coupling, removed)
    kinds = [node.layer for node in walk(architecture(written).blocks[1].nodes) if isinstance(node.layer, L.Conv)]
    assert [(conv.conv, conv.kernel_size) for conv in kinds] == [(8, 3), (8, 1)]
    assert architecture(spec_of(dump(written)).value) == architecture(written)
