"""Removed and cropped networks give what the thresholded ones give, over random patterns of zeros."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, some, spec_of
from networks import with_statistics

from kerasgreedy.graph.architecture import architecture
from kerasgreedy.graph.coupling import find_coupling
from kerasgreedy.graph.shrink_steps import cuts, steps
from kerasgreedy.graph.thresholding import Thresholded, pattern, removable, sides
from kerasgreedy.graph.tree import leaves
from kerasgreedy.kernel_groups import group_count, side_left
from kerasgreedy.network.build import build_network
from kerasgreedy.network.shrinking import norms_of, shrunk, thresholded_arrays
from kerasgreedy.spec import layers as L
from kerasgreedy.spec.load import load_spec

SPECS = {
    "residual": """
block_defaults: {batch_norm: true}
blocks:
  - {conv: 6}
  - {residual: [{conv: 6}, {conv: 6, activation: linear}]}
  - {residual: [{conv: 5, kernel_size: 5}, {conv: 6, activation: linear}]}
  - {residual: [{conv: 8, stride: 2}, {conv: 8, activation: linear}], shortcut: pad}
  - {residual: [{conv: 8}, {conv: 8, activation: linear}], shortcut: projection}
  - {residual: [{conv: 10, stride: 2}, {conv: 10, kernel_size: 1, activation: linear}], shortcut: projection}
final_head: {layers: [{global_avg_pool: true}]}
auxiliary_head: {hidden_layers: 1, width: 2x, batch_norm: true}
""",
    # Every padding and stride, kernels of even sides, groups, branches, biases, dense layers, another activation.
    "plain": """
blocks:
  - [{conv: 6, kernel_size: 5, padding: 2}, {conv: 6, kernel_size: 4}, {conv: 6, kernel_size: 3, stride: 2}]
  - [{conv: 6, kernel_size: 2, padding: [0, 1], activation: leaky_relu}, {conv: 6, groups: 3}, {conv: 7, padding: valid}]
  - branches: [[{conv: 3}, {batch_norm: true}], [{conv: 4, kernel_size: 5, batch_norm: true}], []]
  - [{conv: 5, downsample: invertible}, {conv: 5, padding: [1, 0], kernel_size: 2}, {max_pool: 2, padding: 1}]
auxiliary_head:
  layers: [{conv: 4, kernel_size: 2, batch_norm: true}, {pool_to: 1}, {flatten: true}, {dense: 6, batch_norm: true}]
""",
}  # fmt: skip


def drawn(text, size, seed):
    """A network whose batch norms, biases and kernels are drawn."""
    network = build_network(spec_of(f"name: n\ninput_shape: [{size}, {size}, 3]\nclasses: 4\n{text}").value, seed=seed)
    return with_statistics(network, np.random.default_rng(seed))


def hidden_places(arch):
    heads = {head.name for head in arch.heads}
    for component in arch.components.values():
        last = component.classifier[0].name if component.name in heads else ""
        for node in leaves(component.nodes):
            if isinstance(node.layer, L.Conv | L.Dense) and node.name != last:
                yield component.name, node.name


def random_norms(arch, groups, rng, share):
    """Norms that grow with the group; about a share of the whole kernels, and more of the outer groups, are below 1."""
    found = {}
    for place, side in sides(arch, list(hidden_places(arch))).items():
        component, name = place
        node = next(node for node in leaves(arch.components[component].nodes) if node.name == name)
        own = share * rng.choice([0, 0.5, 1, 2])
        rows = []
        for _ in range(node.output_shape[-1]):
            left = 0 if rng.random() < own else rng.integers(1, group_count(side, groups) + 1)
            count = group_count(side, groups)
            rows.append([0.5 if n < count - left else 1.5 + rng.random() for n in range(count)])
        found[place] = rows
    return found


def deployed(network, images):
    return {key: np.asarray(value) for key, value in network.model()(images, training=False).items()}


@pytest.mark.parametrize(
    ("name", "groups", "split"),
    some(
        ("residual", "half_rings", True),
        slow=[
            case for case in itertools.product(SPECS, ["kernel", "half_rings", "rings"], [False, True])
            if case != ("residual", "half_rings", True)
        ],
    ),
)  # fmt: skip
def test_random_patterns(name, groups, split):
    bodies = emptied = smaller = placed = 0
    for seed in range(4):
        network = drawn(SPECS[name], 8, seed)
        rng = np.random.default_rng(seed)
        arch, touches = network.architecture, list(network.names)
        spec = spec_of(f"name: n\ninput_shape: [8, 8, 3]\nclasses: 4\n{SPECS[name]}").value
        norms = random_norms(arch, groups, rng, [0.2, 0.5, 0.7, 0.9][seed])
        found = pattern(arch, norms, 1.0, touches)
        bodies, emptied = bodies + len(found.bodies), emptied + len(found.emptied)
        places = cuts(spec, found, groups, touches) if split else []
        rewritings = steps(spec, found, groups, touches, places)
        for component, arrays in thresholded_arrays(network, spec, found, groups, touches).items():
            network.load_arrays(component, arrays)
        images = rng.normal(size=(4, 8, 8, 3)).astype(np.float32) * 50
        expected = deployed(network, images)
        result, last = shrunk(network, spec, rewritings)
        for key, value in deployed(result, images).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-5 * max(1, np.abs(expected[key]).max()), err_msg=key)
        assert architecture(last).multiply_adds <= arch.multiply_adds
        smaller += architecture(last).multiply_adds < arch.multiply_adds
        placed += "place_channels" in str(last.model_dump(exclude_unset=True))
    assert smaller == 4 and emptied
    if name == "residual":
        assert bodies and placed


def test_channels_that_only_a_body_that_goes_had_kept():
    """A convolution in groups needs all channels; without it one that is zero goes, and what a batch norm makes of it with it."""
    text = """
blocks:
  - {conv: 4}
  - {residual: [{conv: 4, groups: 2}, {conv: 4, activation: linear}]}
  - [{batch_norm: true}, {conv: 3}]
final_head: {layers: [{global_avg_pool: true}]}
"""
    network = drawn(text, 8, 0)
    spec = spec_of(f"name: n\ninput_shape: [8, 8, 3]\nclasses: 4\n{text}").value
    touches, images = list(network.names), np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32) * 50
    norms = {("block_1", "conv_1"): [[2.0], [0.5], [2.0], [2.0]], ("block_2", "conv_1"): [[0.5]] * 4}
    found = pattern(network.architecture, {**norms, ("block_2", "conv_2"): [[2.0]] * 4}, 1.0, touches)
    assert found.bodies == (("block_2", "residual_1"),)
    with network.holding(thresholded_arrays(network, spec, found, "kernel", touches)):
        expected = deployed(network, images)
        result, last = shrunk(network, spec, steps(spec, found, "kernel", touches, []))
    assert architecture(last).blocks[0].output_shape[-1] == 3
    for key, value in deployed(result, images).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5 * max(1, np.abs(expected[key]).max()), err_msg=key)


def counted(arch, found, groups):
    """Eq. 10 on the thresholded kernels: r c d' s^2 over the filters that are there; d' are the channels of the map that are."""
    coupling = find_coupling(arch)
    removed = gone_labels(arch, found, groups)
    total = 0
    for component in (*arch.blocks, arch.heads[-1]):
        for node in leaves(component.nodes):
            place = (component.name, node.name)
            if isinstance(node.layer, L.Conv | L.Dense):
                entering = sum(label not in removed for label in coupling.inputs[place])
                places = node.output_shape[0] * node.output_shape[1] if len(node.output_shape) == 3 else 1
                own = node.layer.kernel_size if isinstance(node.layer, L.Conv) else 1
                counts = found.gone.get(place, [0] * node.output_shape[-1])
                total += sum(places * entering * side_left(own, count, groups) ** 2 for count in counts)
    return total


@pytest.mark.parametrize("groups", ["kernel", "half_rings", "rings"])
def test_multiply_adds_are_those_of_equation_10(groups):
    """With branches for kernels of different sides."""
    text = SPECS["residual"]
    for seed in range(4):
        spec = spec_of(f"name: n\ninput_shape: [8, 8, 3]\nclasses: 4\n{text}").value
        arch = architecture(spec)
        norms = random_norms(arch, groups, np.random.default_rng(seed), [0.2, 0.4, 0.6, 0.8][seed])
        found = pattern(arch, norms, 1.0, list(arch.components))
        rewritings = steps(spec, found, groups, list(arch.components), cuts(spec, found, groups, list(arch.components)))
        assert architecture(rewritings[-1].after).multiply_adds == counted(arch, found, groups)


@pytest.mark.parametrize(
    ("name", "groups"),
    some(("residual", "half_rings"), slow=[("residual", "kernel"), ("plain", "rings")]),
)
def test_filters_of_zeros_in_sums(name, groups):
    """Outputs are those of the thresholded network, and each layer has all filters of the channels that stay."""
    gaps = 0
    for seed in range(4):
        network, rng = drawn(SPECS[name], 8, seed), np.random.default_rng(seed)
        arch, touches = network.architecture, list(network.names)
        spec = spec_of(f"name: n\ninput_shape: [8, 8, 3]\nclasses: 4\n{SPECS[name]}").value
        found = pattern(arch, random_norms(arch, groups, rng, [0.2, 0.3, 0.4, 0.5][seed]), 1.0, touches)
        zeros = [place for place, (_, cut) in cuts(spec, found, groups, touches).items() if cut.has_gaps]
        for component, arrays in thresholded_arrays(network, spec, found, groups, touches).items():
            network.load_arrays(component, arrays)
        images = rng.normal(size=(4, 8, 8, 3)).astype(np.float32) * 50
        expected = deployed(network, images)
        result, last = shrunk(network, spec, steps(spec, found, groups, touches, [], zeros))
        for key, value in deployed(result, images).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-5 * max(1, np.abs(expected[key]).max()), err_msg=key)
        gaps += len(zeros)
        if not found.bodies:  # whose shortcuts put channels in place
            assert "place_channels" not in str(last.model_dump(exclude_unset=True))
            removed, outputs = gone_labels(arch, found, groups), find_coupling(arch).outputs
            stays = {place: sum(label not in removed for label in labels) for place, labels in outputs.items()}
            for component in architecture(last).components.values():
                for node in leaves(component.nodes):
                    if isinstance(node.layer, L.Conv | L.Dense):
                        assert node.output_shape[-1] == stays[component.name, node.name]
    assert gaps or name == "plain"


def gone_labels(arch, found, groups):
    whole = {place: group_count(side, groups) for place, side in sides(arch, found.gone).items()}
    return removable(find_coupling(arch), found.gone, whole, list(arch.components))


ONE_LAYER = """
blocks:
  - {conv: 4}
  - {residual: [{conv: 8, stride: 2}, {conv: 8, activation: linear}], shortcut: pad}
  - {residual: [{conv: 8, activation: linear}]}
  - [{conv: 8, groups: 8, batch_norm: true}, {residual: [{conv: 8, activation: linear}], activation: linear}]
  - {residual: [{conv: 6, activation: linear}, {conv: 8, activation: linear}], activation: linear}
final_head: {layers: [{global_avg_pool: true}]}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "groups"),
    some(
        (SPECS["residual"], "rings"),
        (ONE_LAYER, "kernel"),
        slow=[(ONE_LAYER, "rings"), (SPECS["residual"], "kernel"), (SPECS["plain"], "kernel"), (SPECS["plain"], "rings")],
    ),
)
def test_thresholded_again_and_again(text, groups):
    """What a threshold has left is thresholded: places without channels, bodies of one layer, depthwise layers behind them."""
    for seed in range(3):
        network, rng = drawn(text, 8, seed), np.random.default_rng(seed)
        spec = spec_of(f"name: n\ninput_shape: [8, 8, 3]\nclasses: 4\n{text}").value
        images = rng.normal(size=(4, 8, 8, 3)).astype(np.float32) * 50
        for share in (0.5, 0.0, 0.4, 0.7, 0.0):
            touches = list(network.names)
            norms = random_norms(network.architecture, groups, rng, share)
            if not share:  # nothing is zero, so nothing changes
                norms = {place: [[2.0] * len(filter_) for filter_ in filters] for place, filters in norms.items()}
            found = pattern(network.architecture, norms, 1.0, touches)
            before = deployed(network, images)
            for component, arrays in thresholded_arrays(network, spec, found, groups, touches).items():
                network.load_arrays(component, arrays)
            expected = deployed(network, images)
            network, spec = shrunk(network, spec, steps(spec, found, groups, touches, cuts(spec, found, groups, touches)))
            for key, value in deployed(network, images).items():
                atol = 1e-5 * max(1, np.abs(expected[key]).max())
                np.testing.assert_allclose(value, expected[key], atol=atol, err_msg=f"{key} {seed} {share}")
                if not share:
                    np.testing.assert_allclose(value, before[key], atol=atol)
            assert network.architecture == architecture(spec)


def test_a_body_with_a_layer_that_stays_stays():
    """A nested layer that is not thresholded gives its bias, whatever enters."""
    spec = spec_of("""
name: n
input_shape: [8, 8, 3]
classes: 4
blocks:
  - {conv: 6}
  - {residual: [{conv: 6, activation: linear}, {residual: [{conv: 6}, {conv: 6}]}]}
final_head: {layers: [{global_avg_pool: true}]}
""").value
    arch = architecture(spec)
    found = pattern(arch, {("block_2", "conv_1"): [[0.5]] * 6}, 1.0, list(arch.components))
    assert not found.bodies and found.emptied == (("block_2", "conv_1"),)


def test_rounding_where_a_body_goes_and_where_filters_are_placed():
    spec = spec_of("""
name: n
input_shape: [8, 8, 3]
classes: 4
blocks:
  - {conv: 16}
  - {residual: [{conv: 16}, {conv: 16, activation: linear}]}
  - {residual: [{conv: 16}, {conv: 16, activation: linear}]}
final_head: {layers: [{global_avg_pool: true}]}
""").value
    arch = architecture(spec)
    norms = {place: [[0.5]] * 12 + [[2.0]] * 4 for place in hidden_places(arch)}
    norms["block_3", "conv_1"] = [[0.5]] * 16
    norms["block_2", "conv_2"] = [[2.0]] * 2 + [[0.5]] * 14
    found = pattern(arch, norms, 1.0, list(arch.components), round_to=8)
    assert found.bodies == (("block_3", "residual_1"),)
    last = architecture(steps(spec, found, "kernel", list(arch.components), [])[-1].after)
    assert last.blocks[0].output_shape[-1] % 8 == 0
    assert all(width % 8 == 0 for block in last.blocks[:2] for width in block.widths)


def test_norms_are_those_of_kernels_and_scales():
    network = drawn(SPECS["residual"], 8, 0)
    arrays = network.arrays("block_1")
    kernel, gamma = arrays["block_1/conv_1/kernel"].astype(float), arrays["block_1/batch_norm_1/gamma"]
    settings = SimpleNamespace(groups="rings", norm="l2", squared=False, weight=1.0)
    whole, outer = np.sqrt((kernel**2).sum((0, 1, 2))), np.sqrt((kernel**2).sum((0, 1, 2)) - (kernel[1, 1] ** 2).sum(0))
    place = ("block_1", "conv_1")
    np.testing.assert_allclose(norms_of(network, [place], settings, "kernel")[place], np.stack([outer, whole], 1), rtol=1e-6)
    got = norms_of(network, [place], settings, "scaled_kernel")[place]
    np.testing.assert_allclose(got, np.stack([outer, whole], 1) * gamma[:, None], rtol=1e-6)
    flat = SimpleNamespace(groups="kernel", norm="l2", squared=False, weight=1.0)
    np.testing.assert_allclose(norms_of(network, [place], flat, "scale")[place], gamma[:, None], rtol=1e-6)


def test_a_pattern_by_hand():
    """A body with a layer that is gone goes; a plain layer keeps its strongest filter; multiples of four stay."""
    spec = spec_of("""
name: n
input_shape: [8, 8, 3]
classes: 4
blocks:
  - {conv: 8}
  - {residual: [{conv: 8}, {conv: 8, activation: linear}]}
  - {conv: 8}
final_head: {layers: [{global_avg_pool: true}]}
""").value
    arch = architecture(spec)
    norms = {place: [[2.0 + i] for i in range(8)] for place in [("block_1", "conv_1"), ("block_2", "conv_2")]}
    norms["block_2", "conv_1"] = [[0.5]] * 8
    norms["block_3", "conv_1"] = [[0.1 + 0.1 * i] for i in range(8)]
    found = pattern(arch, norms, 1.0, list(arch.components))
    assert found.bodies == (("block_2", "residual_1"),) and found.emptied == (("block_3", "conv_1"),)
    assert found.gone["block_2", "conv_2"] == [1] * 8 and found.gone["block_3", "conv_1"] == [1] * 7 + [0]
    last = steps(spec, found, "kernel", list(arch.components), [])[-1].after
    assert architecture(last).blocks[1].multiply_adds == 0
    assert architecture(last).blocks[2].widths == [1]
    rounded = pattern(arch, norms, 1.0, list(arch.components), round_to=4)
    assert rounded.gone["block_3", "conv_1"] == [1] * 4 + [0] * 4
    assert isinstance(found, Thresholded)


@pytest.mark.parametrize(
    "path",
    some("resnet20_cifar", slow=sorted(p.stem for p in (ROOT / "model_specs").glob("*.yaml") if p.stem != "resnet20_cifar")),
)
def test_every_shipped_spec(path):
    """Over random patterns: structure and sizes fit, and the outputs are those of the thresholded network."""
    spec = load_spec(ROOT / "model_specs" / f"{path}.yaml").value
    arch = architecture(spec)
    if max(arch.input_shape[:2]) > 64:
        pytest.skip("the kinds of its layers are in the others")
    spec = spec.model_copy(update={"input_shape": list(arch.input_shape), "classes": arch.classes})
    network, rng = build_network(spec, seed=1), np.random.default_rng(2)
    touches = list(network.names)
    norms = random_norms(arch, "half_rings", rng, 0.4)
    found = pattern(arch, norms, 1.0, touches)
    for component, arrays in thresholded_arrays(network, spec, found, "half_rings", touches).items():
        network.load_arrays(component, arrays)
    images = rng.normal(size=(2, *arch.input_shape)).astype(np.float32) * 50
    expected = deployed(network, images)
    result, _ = shrunk(network, spec, steps(spec, found, "half_rings", touches, cuts(spec, found, "half_rings", touches)))
    for key, value in deployed(result, images).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5 * max(1, np.abs(expected[key]).max()))
